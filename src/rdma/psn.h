// Psn: a point on the 24-bit circle of packet sequence numbers.
//
// There is no operator<: "before" on a circle needs a reference point, so callers ask for a
// distance instead.
#pragma once

#include <cstdint>

namespace isthmus::rdma {

class Psn {
 public:
  static constexpr std::uint32_t kMask = 0x00ff'ffff;
  // At most this many packets may be in flight: the farthest new packet is 2^23 - 1 ahead of what
  // is expected, the farthest old one 2^23 behind.
  static constexpr std::uint32_t kHalfCircle = 1u << 23;

  constexpr Psn() = default;
  constexpr explicit Psn(std::uint32_t raw) : raw_(raw & kMask) {}

  constexpr std::uint32_t raw() const { return raw_; }
  constexpr Psn plus(std::uint32_t steps) const { return Psn{raw_ + steps}; }
  constexpr Psn next() const { return plus(1); }
  constexpr Psn previous() const { return Psn{raw_ - 1}; }
  constexpr std::uint32_t steps_from(Psn origin) const { return (raw_ - origin.raw_) & kMask; }
  // Whether this lies behind `origin` rather than at or ahead of it.
  constexpr bool is_behind(Psn origin) const { return steps_from(origin) >= kHalfCircle; }
  friend constexpr bool operator==(Psn, Psn) = default;

 private:
  std::uint32_t raw_ = 0;
};

}  // namespace isthmus::rdma
