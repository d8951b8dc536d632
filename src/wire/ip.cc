#include "wire/ip.h"

#include <algorithm>
#include <cstring>

#include "wire/byte_order.h"

namespace isthmus::wire {

std::size_t encode(const EthernetHeader& header, std::byte* out) {
  std::ranges::copy(header.destination, out);
  std::ranges::copy(header.source, out + 6);
  store_be16(out + 12, header.ether_type);
  return kEthernetBytes;
}

std::size_t encode(const Ipv4Header& header, std::byte* out) {
  store_u8(out, 0x45);  // Version 4, five words of header.
  store_u8(out + 1, header.tos);
  store_be16(out + 2, header.total_bytes);
  store_be16(out + 4, header.id);
  store_be16(out + 6, header.flags_fragment);
  store_u8(out + 8, header.ttl);
  store_u8(out + 9, header.protocol);
  store_be16(out + 10, 0);
  store_be32(out + 12, header.source);
  store_be32(out + 16, header.destination);
  store_be16(out + 10, internet_checksum({out, kIpv4Bytes}));
  return kIpv4Bytes;
}

std::size_t encode(const Ipv6Header& header, std::byte* out) {
  store_be32(out,
             6u << 28 | std::uint32_t{header.traffic_class} << 20 | (header.flow_label & 0xf'ffff));
  store_be16(out + 4, header.payload_bytes);
  store_u8(out + 6, header.next_header);
  store_u8(out + 7, header.hop_limit);
  std::ranges::copy(header.source.bytes(), out + 8);
  std::ranges::copy(header.destination.bytes(), out + 24);
  return kIpv6Bytes;
}

std::size_t encode(const UdpHeader& header, std::byte* out) {
  store_be16(out, header.source_port);
  store_be16(out + 2, header.destination_port);
  store_be16(out + 4, header.total_bytes);
  store_be16(out + 6, header.checksum);
  return kUdpBytes;
}

std::expected<EthernetHeader, DecodeError> decode_ethernet(std::span<const std::byte> in) {
  if (in.size() < kEthernetBytes) return std::unexpected(DecodeError::kTooShort);
  EthernetHeader header;
  std::ranges::copy(in.first(6), header.destination.begin());
  std::ranges::copy(in.subspan(6, 6), header.source.begin());
  header.ether_type = load_be16(in.data() + 12);
  return header;
}

std::expected<Ipv4Header, DecodeError> decode_ipv4(std::span<const std::byte> in) {
  if (in.size() < kIpv4Bytes) return std::unexpected(DecodeError::kTooShort);
  const std::byte* at = in.data();
  if (load_u8(at) != 0x45) return std::unexpected(DecodeError::kBadVersion);
  if (internet_checksum(in.first(kIpv4Bytes)) != 0) {
    return std::unexpected(DecodeError::kBadChecksum);
  }
  const Ipv4Header header{.tos = load_u8(at + 1),
                          .total_bytes = load_be16(at + 2),
                          .id = load_be16(at + 4),
                          .flags_fragment = load_be16(at + 6),
                          .ttl = load_u8(at + 8),
                          .protocol = load_u8(at + 9),
                          .source = load_be32(at + 12),
                          .destination = load_be32(at + 16)};
  if (header.total_bytes < kIpv4Bytes || header.total_bytes > in.size()) {
    return std::unexpected(DecodeError::kBadLength);
  }
  return header;
}

std::expected<Ipv6Header, DecodeError> decode_ipv6(std::span<const std::byte> in) {
  if (in.size() < kIpv6Bytes) return std::unexpected(DecodeError::kTooShort);
  const std::byte* at = in.data();
  const std::uint32_t first = load_be32(at);
  if (first >> 28 != 6) return std::unexpected(DecodeError::kBadVersion);
  const Ipv6Header header{.traffic_class = static_cast<std::uint8_t>(first >> 20),
                          .flow_label = first & 0xf'ffff,
                          .payload_bytes = load_be16(at + 4),
                          .next_header = load_u8(at + 6),
                          .hop_limit = load_u8(at + 7),
                          .source = IpAddress::from_bytes(in.subspan<8, 16>()),
                          .destination = IpAddress::from_bytes(in.subspan<24, 16>())};
  if (header.payload_bytes > in.size() - kIpv6Bytes) {
    return std::unexpected(DecodeError::kBadLength);
  }
  return header;
}

std::expected<UdpHeader, DecodeError> decode_udp(std::span<const std::byte> in) {
  if (in.size() < kUdpBytes) return std::unexpected(DecodeError::kTooShort);
  const UdpHeader header{.source_port = load_be16(in.data()),
                         .destination_port = load_be16(in.data() + 2),
                         .total_bytes = load_be16(in.data() + 4),
                         .checksum = load_be16(in.data() + 6)};
  if (header.total_bytes < kUdpBytes || header.total_bytes > in.size()) {
    return std::unexpected(DecodeError::kBadLength);
  }
  return header;
}

std::uint16_t internet_checksum(std::span<const std::byte> bytes, std::uint32_t sum) {
  // 64 KiB of words of at most 0xffff each stay below 2^32 with any 16-bit start.
  std::uint64_t total = sum;
  std::size_t i = 0;
  for (; i + 2 <= bytes.size(); i += 2) total += load_be16(bytes.data() + i);
  if (i < bytes.size()) total += std::uint32_t{load_u8(bytes.data() + i)} << 8;
  while (total >> 16 != 0) total = (total & 0xffff) + (total >> 16);
  return static_cast<std::uint16_t>(~total);
}

std::uint16_t udp_checksum(const IpAddress& source, const IpAddress& destination,
                           std::span<const std::byte> udp) {
  std::uint32_t sum = kIpProtocolUdp + static_cast<std::uint32_t>(udp.size());
  for (const IpAddress* address : {&source, &destination}) {
    const std::span<const std::byte> bytes = address->header_bytes();
    for (std::size_t i = 0; i < bytes.size(); i += 2) sum += load_be16(bytes.data() + i);
  }
  const std::uint16_t checksum = internet_checksum(udp, sum);
  return checksum == 0 ? 0xffff : checksum;  // 0 says "not computed"; both are zero in the sum.
}

}  // namespace isthmus::wire
