// Randomness for keys, tags and first PSNs: from the kernel, fit for secrets.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace isthmus::os {

void fill_random(std::span<std::byte> bytes);
std::uint64_t random_u64();

}  // namespace isthmus::os
