#include "rdma/flow_rule.h"

#include <algorithm>
#include <bit>
#include <tuple>

#include "wire/byte_order.h"
#include "wire/ip.h"

namespace isthmus::rdma {
namespace {

constexpr std::uint16_t kEtherTypeVlan = 0x8100;
constexpr std::uint16_t kEtherTypeServiceVlan = 0x88a8;
constexpr int kMaxVlanTags = 2;
constexpr std::size_t kVlanTagBytes = 4;

constexpr std::uint8_t kProtocolHopByHop = 0;
constexpr std::uint8_t kProtocolTcp = 6;
constexpr std::uint8_t kProtocolRouting = 43;
constexpr std::uint8_t kProtocolFragment = 44;
constexpr std::uint8_t kProtocolDestinationOptions = 60;
constexpr int kMaxExtensionHeaders = 8;
constexpr std::size_t kExtensionUnitBytes = 8;
constexpr std::uint16_t kFragmentOffsetMaskV4 = 0x1fff;
constexpr std::uint16_t kFragmentOffsetMaskV6 = 0xfff8;
constexpr std::uint32_t kFlowLabelMask = 0xf'ffff;

using Bytes = std::span<const std::byte>;

template <std::size_t kCount>
void copy(Bytes from, std::size_t offset, std::array<std::byte, kCount>& to) {
  std::ranges::copy(from.subspan(offset, kCount), to.begin());
}

void read_transport(Bytes rest, FlowFields& fields) {
  const auto protocol = std::to_integer<std::uint8_t>(fields.protocol);
  const bool has_ports = protocol == kProtocolTcp || protocol == wire::kIpProtocolUdp;
  if (!has_ports || rest.size() < 4) return;
  fields.transport = fields.protocol;
  copy(rest, 0, fields.src_port);
  copy(rest, 2, fields.dst_port);
}

void read_ipv4(Bytes packet, FlowFields& fields) {
  if (packet.size() < wire::kIpv4Bytes || wire::load_u8(&packet[0]) >> 4 != 4) return;
  const std::size_t header_bytes = (wire::load_u8(&packet[0]) & 0xfu) * 4;
  if (header_bytes < wire::kIpv4Bytes || header_bytes > packet.size()) return;
  fields.ip_version = std::byte{4};
  fields.traffic_class = packet[1];
  fields.hop_limit = packet[8];
  fields.protocol = packet[9];
  std::ranges::copy(packet.subspan(12, 4), fields.src_ip.begin());
  std::ranges::copy(packet.subspan(16, 4), fields.dst_ip.begin());
  const bool is_later_fragment = wire::load_be16(&packet[6]) & kFragmentOffsetMaskV4;
  if (!is_later_fragment) read_transport(packet.subspan(header_bytes), fields);
}

// Past the extension headers. `protocol` becomes what follows them. Empty: nothing to read there.
Bytes skip_extensions(Bytes rest, std::byte& protocol) {
  for (int i = 0; i < kMaxExtensionHeaders; ++i) {
    const auto kind = std::to_integer<std::uint8_t>(protocol);
    const bool is_extension = kind == kProtocolHopByHop || kind == kProtocolRouting ||
                              kind == kProtocolDestinationOptions || kind == kProtocolFragment;
    if (!is_extension) return rest;
    if (rest.size() < kExtensionUnitBytes) return {};
    std::size_t bytes = kExtensionUnitBytes;
    if (kind == kProtocolFragment) {
      if (wire::load_be16(&rest[2]) & kFragmentOffsetMaskV6) {
        protocol = rest[0];
        return {};
      }
    } else {
      bytes *= 1u + wire::load_u8(&rest[1]);
    }
    if (bytes > rest.size()) return {};
    protocol = rest[0];
    rest = rest.subspan(bytes);
  }
  return {};
}

void read_ipv6(Bytes packet, FlowFields& fields) {
  if (packet.size() < wire::kIpv6Bytes || wire::load_u8(&packet[0]) >> 4 != 6) return;
  fields.ip_version = std::byte{6};
  const std::uint32_t first = wire::load_be32(&packet[0]);
  fields.traffic_class = static_cast<std::byte>(first >> 20 & 0xff);
  wire::store_be32(fields.flow_label.data(), first & kFlowLabelMask);
  fields.protocol = packet[6];
  fields.hop_limit = packet[7];
  copy(packet, 8, fields.src_ip);
  copy(packet, 24, fields.dst_ip);
  const Bytes rest = skip_extensions(packet.subspan(wire::kIpv6Bytes), fields.protocol);
  read_transport(rest, fields);
}

}  // namespace

FlowFields flow_fields_of(Bytes frame) {
  FlowFields fields;
  if (frame.size() < wire::kEthernetBytes) return fields;
  copy(frame, 0, fields.dst_mac);
  copy(frame, 6, fields.src_mac);
  std::uint16_t type = wire::load_be16(&frame[12]);
  Bytes rest = frame.subspan(wire::kEthernetBytes);
  for (int i = 0; i < kMaxVlanTags; ++i) {
    if (type != kEtherTypeVlan && type != kEtherTypeServiceVlan) break;
    if (rest.size() < kVlanTagBytes) break;
    if (i == 0) copy(rest, 0, fields.vlan_tag);
    fields.is_tagged = std::byte{1};
    type = wire::load_be16(&rest[2]);
    rest = rest.subspan(kVlanTagBytes);
  }
  wire::store_be16(fields.ether_type.data(), type);
  if (type == wire::kEtherTypeIpv4) read_ipv4(rest, fields);
  if (type == wire::kEtherTypeIpv6) read_ipv6(rest, fields);
  return fields;
}

bool FlowRule::matches(const FlowFields& fields) const {
  using Words = std::array<std::uint64_t, sizeof(FlowFields) / sizeof(std::uint64_t)>;
  const auto frame = std::bit_cast<Words>(fields);
  const auto wanted = std::bit_cast<Words>(value);
  const auto under = std::bit_cast<Words>(mask);
  std::uint64_t difference = 0;
  for (std::size_t i = 0; i < frame.size(); ++i) difference |= (frame[i] ^ wanted[i]) & under[i];
  return difference == 0;
}

bool FlowRule::is_before(const FlowRule& other) const {
  return std::tie(order, priority) < std::tie(other.order, other.priority);
}

}  // namespace isthmus::rdma
