// Goal: no page of the far region is ever handed out twice, and none is lost.
// Method: the cases of merging and splitting by hand; then a long random run beside a model that
// has one flag for each page.
#include "farmem/far_ranges.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace isthmus::farmem {
namespace {

using os::AddressRange;
using os::kPageBytes;

constexpr std::uint64_t kStart = 0x7000'0000'0000;

AddressRange pages(std::uint64_t first, std::uint64_t count) {
  return {kStart + first * kPageBytes, count * kPageBytes};
}

std::unique_ptr<FarRanges> region_of(std::uint64_t page_count) {
  auto made = FarRanges::create(pages(0, page_count));
  EXPECT_TRUE(made) << made.error().message;
  return std::move(*made);
}

TEST(FarRanges, HandsOutTheFirstThatFits) {
  const auto ranges = region_of(10);
  EXPECT_EQ(ranges->take(4 * kPageBytes), pages(0, 4));
  EXPECT_EQ(ranges->take(4 * kPageBytes), pages(4, 4));
  EXPECT_EQ(ranges->take(3 * kPageBytes), std::nullopt);
  EXPECT_EQ(ranges->take(2 * kPageBytes), pages(8, 2));
  EXPECT_EQ(ranges->take(1 * kPageBytes), std::nullopt);
  EXPECT_EQ(ranges->free_range_count(), 0u);

  // A hole of one page and one of four. Expect: two pages come from the second.
  ranges->give_back(pages(1, 1));
  ranges->give_back(pages(4, 4));
  EXPECT_EQ(ranges->take(2 * kPageBytes), pages(4, 2));
  EXPECT_EQ(ranges->free_bytes(), 3 * kPageBytes);
}

TEST(FarRanges, MergesWithBothNeighbours) {
  const auto ranges = region_of(9);
  ASSERT_TRUE(ranges->take_at(pages(0, 9)));
  ranges->give_back(pages(0, 3));
  ranges->give_back(pages(6, 3));
  EXPECT_EQ(ranges->free_range_count(), 2u);
  ranges->give_back(pages(3, 3));
  EXPECT_EQ(ranges->free_range_count(), 1u);
  EXPECT_EQ(ranges->take(9 * kPageBytes), pages(0, 9));
}

TEST(FarRanges, TakesAPlaceOnlyWhenAllOfItIsFree) {
  const auto ranges = region_of(8);
  EXPECT_TRUE(ranges->take_at(pages(2, 2)));  // From the middle: two ranges are left.
  EXPECT_EQ(ranges->free_range_count(), 2u);
  EXPECT_FALSE(ranges->take_at(pages(1, 2)));
  EXPECT_FALSE(ranges->take_at(pages(3, 2)));
  EXPECT_FALSE(ranges->take_at(pages(0, 8)));
  EXPECT_FALSE(ranges->take_at(pages(7, 2)));  // Past the end.
  EXPECT_TRUE(ranges->take_at(pages(0, 2)));
  EXPECT_TRUE(ranges->take_at(pages(4, 4)));
  EXPECT_EQ(ranges->free_bytes(), 0u);
}

TEST(FarRanges, AcceptsWhatIsFreeAlready) {
  const auto ranges = region_of(8);
  ASSERT_TRUE(ranges->take_at(pages(2, 1)));
  ASSERT_TRUE(ranges->take_at(pages(5, 1)));
  ranges->give_back(pages(1, 6));
  EXPECT_EQ(ranges->free_bytes(), 8 * kPageBytes);
  EXPECT_EQ(ranges->free_range_count(), 1u);
}

TEST(FarRanges, AgreesWithAModelOfPages) {
  constexpr std::uint64_t kPages = 97;
  const auto ranges = region_of(kPages);
  std::vector<bool> used(kPages);
  std::mt19937 random{20260801};
  const auto any_used = [&used](AddressRange range) {
    bool found = false;
    for (std::uint64_t page = 0; page < kPages; ++page) {
      const std::uint64_t address = kStart + page * kPageBytes;
      found |= used[page] && address >= range.start && address < range.end();
    }
    return found;
  };
  const auto mark = [&used](AddressRange range, bool as) {
    for (std::uint64_t at = range.start; at < range.end(); at += kPageBytes) {
      used[(at - kStart) / kPageBytes] = as;
    }
  };
  for (int step = 0; step < 20'000; ++step) {
    const std::uint64_t first = random() % kPages;
    const AddressRange range = pages(first, 1 + random() % (kPages - first));
    switch (random() % 3) {
      case 0:
        if (const auto taken = ranges->take((1 + random() % 20) * kPageBytes)) {
          ASSERT_FALSE(any_used(*taken)) << "step " << step;
          mark(*taken, true);
        }
        break;
      case 1: {
        const bool free = !any_used(range);
        ASSERT_EQ(ranges->take_at(range), free) << "step " << step;
        if (free) mark(range, true);
        break;
      }
      default:
        ranges->give_back(range);
        mark(range, false);
    }
    const auto in_use = static_cast<std::uint64_t>(std::count(used.begin(), used.end(), true));
    ASSERT_EQ(ranges->free_bytes(), (kPages - in_use) * kPageBytes) << "step " << step;
  }
}

}  // namespace
}  // namespace isthmus::farmem
