// Goal: no slab twice at a time, all of them in the end, and always zeros.
// Method: small pools, written to by each owner.
#include "farmem/node/slab_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace isthmus::farmem {
namespace {

constexpr std::uint64_t kSmall = kLeastSlabBytes;

bool is_zero(std::span<const std::byte> memory) {
  return std::ranges::all_of(memory, [](std::byte byte) { return byte == std::byte{0}; });
}

TEST(SlabPool, GivesEachSlabOnceAndZeroed) {
  const auto pool = SlabPool::create({.bytes = 4 * kSmall + 100, .slab_bytes = kSmall});
  ASSERT_TRUE(pool);
  EXPECT_EQ((*pool)->slab_count(), 4u);
  for (int round = 0; round < 3; ++round) {
    std::set<std::uint32_t> slabs;
    while (const auto slab = (*pool)->take()) {
      EXPECT_TRUE(slabs.insert(*slab).second);
      EXPECT_TRUE(is_zero((*pool)->memory_of(*slab))) << "round " << round;
      std::ranges::fill((*pool)->memory_of(*slab), std::byte{0xaa});
    }
    EXPECT_EQ(slabs.size(), 4u);
    EXPECT_EQ((*pool)->free_count(), 0u);
    for (const std::uint32_t slab : slabs) (*pool)->give_back(slab);
    EXPECT_EQ((*pool)->free_count(), 4u);
  }
}

TEST(SlabPool, ForgetsWhatIsWrittenAfterTheRelease) {
  const auto pool = SlabPool::create({.bytes = kSmall, .slab_bytes = kSmall});
  ASSERT_TRUE(pool);
  const std::uint32_t slab = (*pool)->take().value();
  (*pool)->give_back(slab);
  (*pool)->memory_of(slab)[7] = std::byte{1};  // A last owner that was too late.
  EXPECT_TRUE(is_zero((*pool)->memory_of((*pool)->take().value())));
}

TEST(SlabPool, RefusesSizesThatMakeNoSense) {
  EXPECT_FALSE(SlabPool::create({.bytes = 0, .slab_bytes = kSmall}));
  EXPECT_FALSE(SlabPool::create({.bytes = kSmall - 1, .slab_bytes = kSmall}));
  EXPECT_FALSE(SlabPool::create({.bytes = 1 << 30, .slab_bytes = kSmall + 4096}));
  EXPECT_FALSE(SlabPool::create({.bytes = 1 << 30, .slab_bytes = 4096}));
  // More than the address space has.
  EXPECT_FALSE(SlabPool::create({.bytes = 1ull << 60, .slab_bytes = kSlabBytes}));
}

}  // namespace
}  // namespace isthmus::farmem
