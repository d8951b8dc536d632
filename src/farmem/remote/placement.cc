#include "farmem/remote/placement.h"

#include <algorithm>

#include "base/assert.h"

namespace isthmus::farmem {

std::optional<std::vector<SlabNodes>> place_slabs(std::span<const std::uint32_t> room,
                                                  std::uint32_t slabs, std::uint32_t replicas) {
  ISTHMUS_ASSERT(replicas >= 1 && replicas <= kMostReplicas);
  ISTHMUS_ASSERT(room.size() <= kMostNodes);
  std::vector<std::uint32_t> left(room.begin(), room.end());
  std::vector<SlabNodes> placed;
  placed.reserve(slabs);
  for (std::uint32_t slab = 0; slab < slabs; ++slab) {
    SlabNodes nodes{};
    for (std::uint32_t copy = 0; copy < replicas; ++copy) {
      const auto taken = std::span(nodes).first(copy);
      std::optional<std::uint32_t> best;
      for (std::uint32_t node = 0; node < left.size(); ++node) {
        if (left[node] == 0 || std::ranges::find(taken, node) != taken.end()) continue;
        if (!best || left[node] > left[*best]) best = node;
      }
      if (!best) return std::nullopt;
      nodes[copy] = *best;
    }
    for (std::uint32_t copy = 0; copy < replicas; ++copy) --left[nodes[copy]];
    placed.push_back(nodes);
  }
  return placed;
}

}  // namespace isthmus::farmem
