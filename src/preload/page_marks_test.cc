// Goal: marks say of every page what was last set, and runs of them neither overlap nor miss one.
// Method: edges of the 64-page words by hand, then a random run beside a vector of flags.
#include "preload/page_marks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace isthmus::preload {
namespace {

using os::AddressRange;
using os::kPageBytes;

constexpr std::uint64_t kStart = 0x7000'0000'0000;
constexpr std::uint64_t kPages = 200;

AddressRange pages(std::uint64_t first, std::uint64_t count) {
  return {kStart + first * kPageBytes, count * kPageBytes};
}

TEST(PageMarks, FindsRunsAcrossWords) {
  auto marks = PageMarks::create(pages(0, kPages));
  ASSERT_TRUE(marks) << marks.error().message;
  EXPECT_FALSE((*marks)->any(pages(0, kPages)));
  EXPECT_EQ((*marks)->first_run(pages(3, 5), Mark::kOff), pages(3, 5));

  (*marks)->set(pages(60, 70), Mark::kOn);
  EXPECT_EQ((*marks)->first_run(pages(0, kPages), Mark::kOn), pages(60, 70));
  EXPECT_EQ((*marks)->first_run(pages(61, 3), Mark::kOn), pages(61, 3));
  EXPECT_EQ((*marks)->first_run(pages(60, 140), Mark::kOff), pages(130, 70));
  EXPECT_EQ((*marks)->first_run(pages(64, 64), Mark::kOff), std::nullopt);
  EXPECT_FALSE((*marks)->any(pages(0, 60)));
  EXPECT_TRUE((*marks)->any(pages(0, 61)));

  (*marks)->set(pages(0, kPages), Mark::kOff);
  EXPECT_FALSE((*marks)->any(pages(0, kPages)));
}

TEST(PageMarks, AgreesWithFlags) {
  auto marks = PageMarks::create(pages(0, kPages));
  ASSERT_TRUE(marks) << marks.error().message;
  std::vector<bool> flags(kPages);
  std::mt19937 random{20260802};
  for (int step = 0; step < 5'000; ++step) {
    const std::uint64_t first = random() % kPages;
    const std::uint64_t count = 1 + random() % (kPages - first);
    const bool on = random() % 2 == 0;
    (*marks)->set(pages(first, count), on ? Mark::kOn : Mark::kOff);
    for (std::uint64_t page = first; page < first + count; ++page) flags[page] = on;

    // All runs of the region, one after the other. Expect: the flags, none left out.
    std::uint64_t seen = 0;
    AddressRange rest = pages(0, kPages);
    while (const auto run = (*marks)->first_run(rest, Mark::kOn)) {
      for (std::uint64_t at = run->start; at < run->end(); at += kPageBytes) {
        ASSERT_TRUE(flags[(at - kStart) / kPageBytes]) << "step " << step;
        ++seen;
      }
      rest = {run->end(), kStart + kPages * kPageBytes - run->end()};
      if (rest.bytes == 0) break;
    }
    ASSERT_EQ(seen, static_cast<std::uint64_t>(std::count(flags.begin(), flags.end(), true)));
  }
}

}  // namespace
}  // namespace isthmus::preload
