#include "wire/grh.h"

#include <algorithm>

#include "base/assert.h"
#include "wire/byte_order.h"

namespace isthmus::wire {
namespace {

constexpr std::size_t kIpv4InGrh = kGrhBytes - kIpv4Bytes;
static_assert(kGrhBytes == kIpv6Bytes);

// Length fields of a packet that is shorter than its own headers are of the program's making.
std::uint16_t without(std::uint16_t bytes, std::size_t header_bytes) {
  return static_cast<std::uint16_t>(bytes - std::min<std::size_t>(bytes, header_bytes));
}

}  // namespace

void encode(const Grh& grh, std::span<std::byte, kGrhBytes> out) {
  ISTHMUS_ASSERT(grh.source.is_v4() == grh.destination.is_v4());
  const auto udp_bytes = static_cast<std::uint16_t>(grh.udp_payload_bytes + kUdpBytes);
  if (!grh.source.is_v4()) {
    encode(Ipv6Header{.traffic_class = grh.traffic_class,
                      .flow_label = grh.flow_label,
                      .payload_bytes = udp_bytes,
                      .hop_limit = grh.hop_limit,
                      .source = grh.source,
                      .destination = grh.destination},
           out.data());
    return;
  }
  std::ranges::fill(out.first<kIpv4InGrh>(), std::byte{0});
  encode(Ipv4Header{.tos = grh.traffic_class,
                    .total_bytes = static_cast<std::uint16_t>(udp_bytes + kIpv4Bytes),
                    .id = grh.ip_id,
                    .ttl = grh.hop_limit,
                    .source = grh.source.v4(),
                    .destination = grh.destination.v4()},
         out.data() + kIpv4InGrh);
}

std::optional<Grh> decode_grh(std::span<const std::byte, kGrhBytes> area) {
  const std::byte* at = area.data();
  if (load_u8(at) >> 4 == 6) {
    const std::uint32_t first = load_be32(at);
    return Grh{.source = IpAddress::from_bytes(area.subspan<8, 16>()),
               .destination = IpAddress::from_bytes(area.subspan<24, 16>()),
               .traffic_class = static_cast<std::uint8_t>(first >> 20),
               .flow_label = first & 0xf'ffff,
               .hop_limit = load_u8(at + 7),
               .udp_payload_bytes = without(load_be16(at + 4), kUdpBytes)};
  }
  at += kIpv4InGrh;
  if (load_u8(at) >> 4 != 4) return std::nullopt;
  return Grh{.source = IpAddress::from_v4(load_be32(at + 12)),
             .destination = IpAddress::from_v4(load_be32(at + 16)),
             .traffic_class = load_u8(at + 1),
             .hop_limit = load_u8(at + 8),
             .ip_id = load_be16(at + 4),
             .udp_payload_bytes = without(load_be16(at + 2), kIpv4Bytes + kUdpBytes)};
}

}  // namespace isthmus::wire
