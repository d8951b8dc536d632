#include "os/clock.h"

#include <time.h>

namespace isthmus::os {
namespace {

std::uint64_t read_clock(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);  // Cannot fail for the two clocks below.
  return static_cast<std::uint64_t>(now.tv_sec) * kNsPerSecond +
         static_cast<std::uint64_t>(now.tv_nsec);
}

}  // namespace

std::uint64_t now_ns() { return read_clock(CLOCK_MONOTONIC); }

std::uint64_t wall_clock_ns() { return read_clock(CLOCK_REALTIME); }

}  // namespace isthmus::os
