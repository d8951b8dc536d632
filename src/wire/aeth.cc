#include "wire/aeth.h"

#include <array>

namespace isthmus::wire {
namespace {

// In units of 10 microseconds, as the specification's table has milliseconds with two decimals.
constexpr std::array<std::uint32_t, 32> kTimer10us = {
    65536, 1,    2,    3,    4,    6,     8,     12,    16,    24,   32,
    48,    64,   96,   128,  192,  256,   384,   512,   768,   1024, 1536,
    2048,  3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152};
constexpr std::uint64_t kUnitNs = 10'000;

}  // namespace

std::uint64_t rnr_timer_ns(std::uint8_t timer_code) {
  return kTimer10us[timer_code & 0x1f] * kUnitNs;
}

std::uint8_t rnr_timer_code(std::uint64_t wait_ns) {
  for (std::uint8_t code = 1; code < kTimer10us.size(); ++code) {
    if (rnr_timer_ns(code) >= wait_ns) return code;
  }
  return 0;
}

}  // namespace isthmus::wire
