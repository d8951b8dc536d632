#include "wire/roce_frame.h"

#include "base/assert.h"
#include "wire/roce_packet.h"

namespace isthmus::wire {
namespace {

// Fills what the UDP header says; `udp` starts with it and ends with the IP packet.
std::expected<RoceFrame, DecodeError> add_udp(RoceFrame frame, std::span<const std::byte> udp) {
  const std::expected<UdpHeader, DecodeError> header = decode_udp(udp);
  if (!header) return std::unexpected(header.error());
  if (header->destination_port != kRoceUdpPort) {
    return std::unexpected(DecodeError::kUnknownMessage);
  }
  frame.flow.source_port = header->source_port;
  frame.flow.destination_port = header->destination_port;
  frame.udp_checksum = header->checksum;
  frame.udp_payload = udp.subspan(kUdpBytes, header->total_bytes - kUdpBytes);
  return frame;
}

std::expected<RoceFrame, DecodeError> add_ipv4(RoceFrame frame, std::span<const std::byte> ip) {
  const std::expected<Ipv4Header, DecodeError> header = decode_ipv4(ip);
  if (!header) return std::unexpected(header.error());
  const bool fragment = (header->flags_fragment & ~kIpv4DontFragment) != 0;
  if (header->protocol != kIpProtocolUdp || fragment) {
    return std::unexpected(DecodeError::kUnknownMessage);
  }
  frame.flow.source = IpAddress::from_v4(header->source);
  frame.flow.destination = IpAddress::from_v4(header->destination);
  frame.traffic_class = header->tos;
  frame.hop_limit = header->ttl;
  frame.ip_id = header->id;
  frame.dont_fragment = (header->flags_fragment & kIpv4DontFragment) != 0;
  return add_udp(frame, ip.subspan(kIpv4Bytes, header->total_bytes - kIpv4Bytes));
}

std::expected<RoceFrame, DecodeError> add_ipv6(RoceFrame frame, std::span<const std::byte> ip) {
  const std::expected<Ipv6Header, DecodeError> header = decode_ipv6(ip);
  if (!header) return std::unexpected(header.error());
  // An IPv4 address in an IPv6 header would make the two families of a flow ambiguous.
  if (header->next_header != kIpProtocolUdp || header->source.is_v4() ||
      header->destination.is_v4()) {
    return std::unexpected(DecodeError::kUnknownMessage);
  }
  frame.flow.source = header->source;
  frame.flow.destination = header->destination;
  frame.traffic_class = header->traffic_class;
  frame.hop_limit = header->hop_limit;
  frame.flow_label = header->flow_label;
  return add_udp(frame, ip.subspan(kIpv6Bytes, header->payload_bytes));
}

}  // namespace

std::expected<RoceFrame, DecodeError> decode_roce_frame(std::span<const std::byte> ethernet) {
  const std::expected<EthernetHeader, DecodeError> header = decode_ethernet(ethernet);
  if (!header) return std::unexpected(header.error());
  RoceFrame frame{.destination_mac = header->destination, .source_mac = header->source};
  const std::span<const std::byte> ip = ethernet.subspan(kEthernetBytes);
  if (header->ether_type == kEtherTypeIpv4) return add_ipv4(frame, ip);
  if (header->ether_type == kEtherTypeIpv6) return add_ipv6(frame, ip);
  return std::unexpected(DecodeError::kUnknownMessage);
}

std::size_t encode_roce_frame_headers(const RoceFrame& frame, std::byte* out) {
  ISTHMUS_ASSERT(frame.udp_payload.size() <= kMaxUdpPayloadBytes);
  ISTHMUS_ASSERT(frame.flow.source.is_v4() == frame.flow.destination.is_v4());
  const bool v4 = frame.flow.source.is_v4();
  const auto udp_bytes = static_cast<std::uint16_t>(kUdpBytes + frame.udp_payload.size());
  std::byte* at = out;
  at += encode(EthernetHeader{.destination = frame.destination_mac,
                              .source = frame.source_mac,
                              .ether_type = v4 ? kEtherTypeIpv4 : kEtherTypeIpv6},
               at);
  if (v4) {
    at += encode(
        Ipv4Header{.tos = frame.traffic_class,
                   .total_bytes = static_cast<std::uint16_t>(kIpv4Bytes + udp_bytes),
                   .id = frame.ip_id,
                   .flags_fragment = frame.dont_fragment ? kIpv4DontFragment : std::uint16_t{0},
                   .ttl = frame.hop_limit,
                   .source = frame.flow.source.v4(),
                   .destination = frame.flow.destination.v4()},
        at);
  } else {
    at += encode(Ipv6Header{.traffic_class = frame.traffic_class,
                            .flow_label = frame.flow_label,
                            .payload_bytes = udp_bytes,
                            .hop_limit = frame.hop_limit,
                            .source = frame.flow.source,
                            .destination = frame.flow.destination},
                 at);
  }
  at += encode(UdpHeader{.source_port = frame.flow.source_port,
                         .destination_port = frame.flow.destination_port,
                         .total_bytes = udp_bytes,
                         .checksum = frame.udp_checksum},
               at);
  return static_cast<std::size_t>(at - out);
}

}  // namespace isthmus::wire
