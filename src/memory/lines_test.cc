// Goal: every way of comparing finds the same lines; packing and unpacking agree; what is malformed
// is refused.
// Method: each byte of a page in turn, then packed pages cut at every length.
#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "memory/line_compare.h"
#include "memory/line_pack.h"
#include "memory/line_set.h"

namespace isthmus::memory {
namespace {

using Page = std::array<std::byte, kPageBytes>;

TEST(LineCompare, EveryByteCountsInEveryKind) {
  Page page{};
  const Page twin{};
  for (int number = 0; number <= static_cast<int>(best_compare_kind()); ++number) {
    const auto kind = static_cast<CompareKind>(number);
    EXPECT_EQ(differing_lines(page.data(), twin.data(), kind), kNoLines) << to_string(kind);
    for (std::size_t at = 0; at < kPageBytes; ++at) {
      page[at] = std::byte{0x80};
      ASSERT_EQ(differing_lines(page.data(), twin.data(), kind), LineMask{1} << (at / 64))
          << to_string(kind) << " byte " << at;
      page[at] = std::byte{0};
    }
  }
  page.fill(std::byte{1});
  EXPECT_EQ(differing_lines(page.data(), twin.data()), kAllLines);
}

TEST(LineSet, IsASetAndComesOutInOrder) {
  LineSet set{3};
  set.add(2, 1);
  set.add(0, 4);
  set.add(2, 1 | 8);
  set.add(1, kNoLines);
  EXPECT_EQ(set.page_count(), 2u);
  EXPECT_EQ(set.front(), 2u);
  EXPECT_EQ(set.lines_of(2), 9u);
  set.pop_front();
  // A page that was taken comes again, more often than there are pages.
  for (std::size_t round = 0; round < 10; ++round) {
    set.add((round + 2) % 3, 1);
    set.pop_front();
  }
  EXPECT_EQ(set.page_count(), 1u);
  set.clear();
  EXPECT_TRUE(set.empty());
  EXPECT_EQ(set.lines_of(0), kNoLines);
}

TEST(LinePack, GivesBackWhatWasPackedAndNothingCutShort) {
  Page page;
  for (std::size_t i = 0; i < page.size(); ++i) page[i] = static_cast<std::byte>(i / 64 + 1);
  std::vector<std::byte> buffer(packed_bytes(5) + packed_bytes(kAllLines));
  LinePacker packer{buffer};
  EXPECT_FALSE(packer.add(1, kNoLines, page));
  EXPECT_TRUE(packer.add(1, 5, page));
  EXPECT_TRUE(packer.add(9, kAllLines, page));
  EXPECT_FALSE(packer.add(2, 1, page));  // Full.
  ASSERT_EQ(packer.packed().size(), buffer.size());

  LineUnpacker unpacker{buffer, 10};
  Page first{};
  apply_lines(**unpacker.next(), first);
  EXPECT_EQ(differing_lines(first.data(), Page{}.data()), 5u);
  EXPECT_EQ(first[128], std::byte{3});
  Page second{};
  const auto whole = unpacker.next();
  EXPECT_EQ((*whole)->page, 9u);
  apply_lines(**whole, second);
  EXPECT_EQ(second, page);
  EXPECT_FALSE(unpacker.next()->has_value());

  // Every length but those of whole pages is refused.
  for (std::size_t bytes = 0; bytes < buffer.size(); ++bytes) {
    const std::vector<std::byte> cut(buffer.begin(),
                                     buffer.begin() + static_cast<std::ptrdiff_t>(bytes));
    LineUnpacker short_one{cut, 10};
    auto found = short_one.next();
    while (found && *found) found = short_one.next();
    EXPECT_EQ(found.has_value(), bytes == 0 || bytes == packed_bytes(5)) << bytes;
  }
  EXPECT_FALSE(LineUnpacker(buffer, 1).next());  // Page 1 of 1.
  const std::array<std::byte, 16> no_line{};
  EXPECT_FALSE(LineUnpacker(no_line, 1).next());
}

}  // namespace
}  // namespace isthmus::memory
