// Placement: which nodes keep the copies of each slab.
//
// Each slab goes to the nodes with the most room left, so that nodes fill evenly and slabs have
// their copies on different ones whenever that is possible at all.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace isthmus::farmem {

constexpr std::uint32_t kMostReplicas = 2;
constexpr std::uint32_t kMostNodes = 16;

using SlabNodes = std::array<std::uint32_t, kMostReplicas>;  // Indexes; the first `replicas` count.

// `room` has the slabs that each node can take. Nothing: there is not enough.
std::optional<std::vector<SlabNodes>> place_slabs(std::span<const std::uint32_t> room,
                                                  std::uint32_t slabs, std::uint32_t replicas);

}  // namespace isthmus::farmem
