// Goal: slabs fill nodes evenly, copies are on different nodes, and what fits is found.
// Method: small rooms by hand; all small ones against the arithmetic of what can fit.
#include "farmem/remote/placement.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace isthmus::farmem {
namespace {

TEST(Placement, FillsEvenly) {
  const std::array<std::uint32_t, 3> room{4, 2, 4};
  const auto placed = place_slabs(room, 8, 1);
  ASSERT_TRUE(placed);
  std::array<std::uint32_t, 3> used{};
  for (const SlabNodes& nodes : *placed) ++used[nodes[0]];
  EXPECT_EQ(used, (std::array<std::uint32_t, 3>{4, 1, 3}));
}

TEST(Placement, SaysWhenThereIsNotEnough) {
  const std::array<std::uint32_t, 2> room{3, 1};
  EXPECT_TRUE(place_slabs(room, 4, 1));
  EXPECT_FALSE(place_slabs(room, 5, 1));
  EXPECT_TRUE(place_slabs(room, 1, 2));
  EXPECT_FALSE(place_slabs(room, 2, 2));
  EXPECT_FALSE(place_slabs({}, 1, 1));
}

TEST(Placement, FindsPairsWheneverThereAreAny) {
  for (std::uint32_t a = 0; a < 6; ++a) {
    for (std::uint32_t b = 0; b < 6; ++b) {
      for (std::uint32_t c = 0; c < 6; ++c) {
        const std::array<std::uint32_t, 3> room{a, b, c};
        const std::uint32_t sum = a + b + c;
        const std::uint32_t most = std::max({a, b, c});
        const std::uint32_t fits = std::min(sum / 2, sum - most);
        EXPECT_FALSE(place_slabs(room, fits + 1, 2)) << a << b << c;
        const auto placed = place_slabs(room, fits, 2);
        ASSERT_TRUE(placed) << a << b << c;
        for (const SlabNodes& nodes : *placed) EXPECT_NE(nodes[0], nodes[1]);
      }
    }
  }
}

}  // namespace
}  // namespace isthmus::farmem
