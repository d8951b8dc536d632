// IP addresses, and the Ethernet, IPv4, IPv6 and UDP headers: for captures, for the GRH area that
// UD receivers expect, and for the part of the ICRC that covers them.
//
// Spec: RFC 791, 768, 8200, 4291 (text form: 5952); RoCEv2 GIDs: InfiniBand annex A17.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "wire/decode_error.h"

namespace isthmus::wire {

// A 16-byte address. IPv4 is held as ::ffff:a.b.c.d, which is also the form of a RoCEv2 GID, so
// that addresses and GIDs are one type and compare as bytes.
class IpAddress {
 public:
  static constexpr std::size_t kBytes = 16;
  using Bytes = std::array<std::byte, kBytes>;

  constexpr IpAddress() = default;  // "::", no address.
  constexpr explicit IpAddress(const Bytes& bytes) : bytes_(bytes) {}

  // Host order: 0x7f000001 is 127.0.0.1.
  static IpAddress from_v4(std::uint32_t address);
  static IpAddress from_v4_bytes(std::span<const std::byte, 4> address);
  // A GID, or 16 bytes of IPv6.
  static IpAddress from_bytes(std::span<const std::byte, kBytes> bytes);
  // "10.0.0.1", "fe80::1", "::ffff:10.0.0.1"; no zone, no port, no brackets.
  static std::optional<IpAddress> parse(std::string_view text);

  // The address of `::ffff:0:0/96`, which is IPv4.
  bool is_v4() const;
  bool is_zero() const { return *this == IpAddress{}; }
  bool is_loopback() const;
  bool is_multicast() const;
  bool is_link_local() const;

  // Only for is_v4(): host order.
  std::uint32_t v4() const;
  // The GID: all 16 bytes.
  const Bytes& bytes() const { return bytes_; }
  // The 4 bytes of IPv4 or the 16 bytes of IPv6, as they stand in the IP header.
  std::span<const std::byte> header_bytes() const;

  // "10.0.0.1" for IPv4, RFC 5952 for IPv6.
  std::string to_string() const;

  friend constexpr bool operator==(const IpAddress&, const IpAddress&) = default;
  friend constexpr auto operator<=>(const IpAddress&, const IpAddress&) = default;

 private:
  Bytes bytes_{};
};

// A hash for unordered maps. Not keyed: a peer that chooses its own addresses can make collisions.
struct IpAddressHash {
  std::size_t operator()(const IpAddress& address) const;
};

inline constexpr std::size_t kEthernetBytes = 14;
inline constexpr std::size_t kIpv4Bytes = 20;
inline constexpr std::size_t kIpv6Bytes = 40;
inline constexpr std::size_t kUdpBytes = 8;
// What the 16-bit length of IPv4 leaves; over IPv6 it could be 20 more, and nobody needs them.
inline constexpr std::size_t kMaxUdpPayloadBytes = 65535 - kIpv4Bytes - kUdpBytes;
inline constexpr std::uint16_t kEtherTypeIpv4 = 0x0800;
inline constexpr std::uint16_t kEtherTypeIpv6 = 0x86dd;
inline constexpr std::uint8_t kIpProtocolUdp = 17;
inline constexpr std::uint16_t kIpv4DontFragment = 0x4000;

using MacAddress = std::array<std::byte, 6>;

struct EthernetHeader {
  MacAddress destination{};
  MacAddress source{};
  std::uint16_t ether_type = 0;
  friend bool operator==(const EthernetHeader&, const EthernetHeader&) = default;
};

// Without options.
struct Ipv4Header {
  std::uint8_t tos = 0;
  std::uint16_t total_bytes = 0;  // This header and all after it.
  std::uint16_t id = 0;
  std::uint16_t flags_fragment = kIpv4DontFragment;  // Flags in the top 3 bits, then the offset.
  std::uint8_t ttl = 64;
  std::uint8_t protocol = kIpProtocolUdp;
  std::uint32_t source = 0;
  std::uint32_t destination = 0;
  friend bool operator==(const Ipv4Header&, const Ipv4Header&) = default;
};

struct Ipv6Header {
  std::uint8_t traffic_class = 0;
  std::uint32_t flow_label = 0;     // 20 bits.
  std::uint16_t payload_bytes = 0;  // All after this header.
  std::uint8_t next_header = kIpProtocolUdp;
  std::uint8_t hop_limit = 64;
  IpAddress source;
  IpAddress destination;
  friend bool operator==(const Ipv6Header&, const Ipv6Header&) = default;
};

struct UdpHeader {
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
  std::uint16_t total_bytes = 0;  // This header and its payload.
  std::uint16_t checksum = 0;     // 0: not computed, as RoCEv2 over IPv4 does.
  friend bool operator==(const UdpHeader&, const UdpHeader&) = default;
};

// Each encode() returns the bytes written; the IPv4 one computes the header's checksum.
std::size_t encode(const EthernetHeader& header, std::byte* out);
std::size_t encode(const Ipv4Header& header, std::byte* out);
std::size_t encode(const Ipv6Header& header, std::byte* out);
std::size_t encode(const UdpHeader& header, std::byte* out);

std::expected<EthernetHeader, DecodeError> decode_ethernet(std::span<const std::byte> in);
// Checks version, absence of options, total length within `in`, and the checksum.
std::expected<Ipv4Header, DecodeError> decode_ipv4(std::span<const std::byte> in);
std::expected<Ipv6Header, DecodeError> decode_ipv6(std::span<const std::byte> in);
std::expected<UdpHeader, DecodeError> decode_udp(std::span<const std::byte> in);

// RFC 1071: the ones' complement sum of 16-bit words, complemented. `sum` carries on an earlier
// partial sum, as of a pseudo header.
std::uint16_t internet_checksum(std::span<const std::byte> bytes, std::uint32_t sum = 0);

// The checksum of a UDP datagram; `udp` is header and payload with a zero checksum field. Needed
// for IPv6, where 0 is not allowed in general. Both addresses are of one family.
std::uint16_t udp_checksum(const IpAddress& source, const IpAddress& destination,
                           std::span<const std::byte> udp);

}  // namespace isthmus::wire
