// The clocks. Cores take `now` as a parameter; their owners read it here.
#pragma once

#include <cstdint>

namespace isthmus::os {

constexpr std::uint64_t kNsPerMs = 1'000'000;
constexpr std::uint64_t kNsPerSecond = 1'000'000'000;

// Nanoseconds of the monotonic clock, the same in every process of this host.
std::uint64_t now_ns();

// Nanoseconds since 1970, for files and people; it may jump.
std::uint64_t wall_clock_ns();

}  // namespace isthmus::os
