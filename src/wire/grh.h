// The 40 bytes in front of every datagram that a UD queue pair receives: the global route header,
// or on RoCEv2 what stands in its place.
//
//     IPv6   the IPv6 header, which has the GRH's layout
//     IPv4   20 bytes of zeros, then the IPv4 header
//
// A UDP socket does not hand out IP headers, so this rebuilds one from what it does tell.
// Spec: InfiniBand Architecture vol. 1, 8.3; annex A17 (RoCEv2), 17.9.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "wire/ip.h"

namespace isthmus::wire {

inline constexpr std::size_t kGrhBytes = 40;

struct Grh {
  IpAddress source;  // Both of one family.
  IpAddress destination;
  std::uint8_t traffic_class = 0;       // IPv4: TOS.
  std::uint32_t flow_label = 0;         // IPv6 only, 20 bits.
  std::uint8_t hop_limit = 64;          // IPv4: TTL.
  std::uint16_t ip_id = 0;              // IPv4 only; as recovered by the ICRC check.
  std::uint16_t udp_payload_bytes = 0;  // BTH to ICRC.
  friend bool operator==(const Grh&, const Grh&) = default;
};

void encode(const Grh& grh, std::span<std::byte, kGrhBytes> out);

// What a program finds when it looks at the area to answer the sender: family by the version
// nibbles, no checksum asked for. Nothing if it is neither.
std::optional<Grh> decode_grh(std::span<const std::byte, kGrhBytes> area);

}  // namespace isthmus::wire
