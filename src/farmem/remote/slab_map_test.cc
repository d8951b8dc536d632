// Goal: a healer that saw a chunk quiet, and then finds no more writes begun, has missed none.
// Method: the orders in which a write and the healer can meet, by hand.
#include "farmem/remote/slab_map.h"

#include <gtest/gtest.h>

#include "os/event_fd.h"
#include "os/poll.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint32_t kSlots = 64;

SlabCopies copies_on(std::uint32_t one, std::uint32_t other) {
  return {SlabCopy{.address = 0x1000, .rkey = 1, .node = one},
          SlabCopy{.address = 0x2000, .rkey = 2, .node = other}};
}

struct SlabMapTest : testing::Test {
  const std::array<SlabCopies, 2> slabs{copies_on(0, 1), copies_on(1, 2)};
  SlabMap map{kSlots, 2, slabs, *os::create_event_fd()};
};

TEST_F(SlabMapTest, FindsPlaces) {
  EXPECT_EQ(map.slot_count(), 2 * kSlots);
  EXPECT_EQ(map.place_of(0, 0).copy.node, 0u);
  EXPECT_EQ(map.place_of(kSlots - 1, 1).copy.node, 1u);
  EXPECT_EQ(map.place_of(kSlots, 1).copy.node, 2u);
  EXPECT_EQ(map.offset_of(kSlots + 3), 3 * kSlotBytes);
}

TEST_F(SlabMapTest, RaisesTheAlarmOnce) {
  const int fd = map.alarm_fd();
  EXPECT_EQ(os::wait_readable({&fd, 1}, 0), 0u);
  EXPECT_TRUE(map.mark_gone(1));
  EXPECT_FALSE(map.mark_gone(1));
  EXPECT_TRUE(map.is_gone(1));
  EXPECT_FALSE(map.is_gone(0));
  EXPECT_EQ(os::wait_readable({&fd, 1}, 0), 1u);
}

TEST_F(SlabMapTest, ReplacesACopyThatIsReadOnlyWhenItIsFull) {
  map.replace(1, 0, {.address = 0x9000, .rkey = 9, .node = 3});
  EXPECT_EQ(map.place_of(kSlots, 0).copy.node, 3u);
  EXPECT_TRUE(map.place_of(kSlots, 0).filling);
  EXPECT_FALSE(map.place_of(kSlots, 1).filling);
  EXPECT_EQ(map.place_of(0, 0).copy.node, 0u);
  map.finish(1, 0);
  EXPECT_FALSE(map.place_of(kSlots, 0).filling);
}

TEST_F(SlabMapTest, GivesAChildWhatIsFullAndNotWhatIsBeingFilled) {
  map.mark_gone(1);
  map.replace(0, 1, {.address = 0x8000, .rkey = 8, .node = 3});
  map.finish(0, 1);
  map.replace(1, 0, {.address = 0x9000, .rkey = 9, .node = 3});
  const auto found = map.slabs_for_child();
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0][0].node, 0u);
  EXPECT_EQ(found[0][1].node, 3u);
  EXPECT_EQ(found[0][1].address, 0x8000u);
  EXPECT_TRUE(map.is_gone(found[1][0].node));
  EXPECT_EQ(found[1][1].node, 2u);
}

TEST_F(SlabMapTest, TellsWritesToAChunkFromOthers) {
  const auto before = map.writes_before(0);
  ASSERT_TRUE(before);
  // Elsewhere. Expect: nothing is seen here.
  map.begin_write({.first = kSlotsOfChunk, .count = 1});
  EXPECT_EQ(map.writes_before(0), before);
  EXPECT_FALSE(map.writes_before(kSlotsOfChunk));
  // Over the border of two chunks. Expect: seen in both, under way and afterwards.
  map.begin_write({.first = kSlotsOfChunk - 1, .count = 2});
  EXPECT_FALSE(map.writes_before(0));
  map.end_write({.first = kSlotsOfChunk - 1, .count = 2});
  EXPECT_TRUE(map.writes_before(0));
  EXPECT_NE(map.writes_begun(0), *before);
  EXPECT_FALSE(map.writes_before(kSlotsOfChunk));
  map.end_write({.first = kSlotsOfChunk, .count = 1});
  EXPECT_TRUE(map.writes_before(kSlotsOfChunk));
}

}  // namespace
}  // namespace isthmus::farmem
