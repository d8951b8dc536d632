#include "rdmacm/datagram_wire.h"

#include <sys/socket.h>

#include <cstring>

#include "wire/byte_order.h"

namespace isthmus::rdmacm {
namespace {

constexpr std::uint32_t kIntroductionTag = 0x5555'5555;
constexpr std::size_t kIntroductionV4Bytes = 16;
constexpr std::size_t kIntroductionV6Bytes = 28;
constexpr std::size_t kIntroductionAddressAt = 12;
constexpr std::size_t kSourceV4Bytes = 8;
constexpr std::size_t kSourceV6Bytes = 24;
constexpr std::size_t kV4Offset = 12;  // In ::ffff:a.b.c.d.
constexpr std::uint32_t kQpnMask = 0x00ff'ffff;

void store_ip(std::byte* to, const attach::CmAddress& address) {
  const bool v4 = address.family == AF_INET;
  std::memcpy(to, address.ip.data() + (v4 ? kV4Offset : 0),
              address.ip.size() - (v4 ? kV4Offset : 0));
}

attach::CmAddress load_ip(const std::byte* from, bool v4) {
  attach::CmAddress address;
  address.family = v4 ? AF_INET : AF_INET6;
  if (v4) address.ip[kV4Offset - 2] = address.ip[kV4Offset - 1] = 0xff;
  std::memcpy(address.ip.data() + (v4 ? kV4Offset : 0), from,
              address.ip.size() - (v4 ? kV4Offset : 0));
  return address;
}

}  // namespace

HeaderBytes encode_introduction(const Introduction& introduction) {
  const bool v4 = introduction.address.family == AF_INET;
  HeaderBytes header;
  header.count = v4 ? kIntroductionV4Bytes : kIntroductionV6Bytes;
  std::byte* const to = header.bytes.data();
  wire::store_be32(to, kIntroductionTag);
  wire::store_u8(to + 4, v4 ? 4 : 6);
  wire::store_u8(to + 5, static_cast<std::uint8_t>(introduction.kind));
  wire::store_u8(to + 6, static_cast<std::uint8_t>(header.count));
  wire::store_be32(to + 8, introduction.qpn);
  store_ip(to + kIntroductionAddressAt, introduction.address);
  return header;
}

std::optional<DecodedIntroduction> decode_introduction(std::span<const std::byte> datagram) {
  if (datagram.size() < kIntroductionV4Bytes) return std::nullopt;
  const std::byte* const from = datagram.data();
  const std::uint8_t version = wire::load_u8(from + 4);
  const std::uint8_t kind = wire::load_u8(from + 5);
  const std::size_t bytes = wire::load_u8(from + 6);
  const bool v4 = version == 4 && bytes == kIntroductionV4Bytes;
  const bool v6 = version == 6 && bytes == kIntroductionV6Bytes;
  if (wire::load_be32(from) != kIntroductionTag || !(v4 || v6) || datagram.size() < bytes) {
    return std::nullopt;
  }
  if (kind != static_cast<std::uint8_t>(IntroductionKind::kData) &&
      kind != static_cast<std::uint8_t>(IntroductionKind::kControl)) {
    return std::nullopt;
  }
  return DecodedIntroduction{
      .introduction = {.kind = static_cast<IntroductionKind>(kind),
                       .qpn = wire::load_be32(from + 8) & kQpnMask,
                       .address = load_ip(from + kIntroductionAddressAt, v4)},
      .header_bytes = bytes};
}

HeaderBytes encode_source(const attach::CmAddress& source) {
  const bool v4 = source.family == AF_INET;
  HeaderBytes header;
  header.count = v4 ? kSourceV4Bytes : kSourceV6Bytes;
  std::byte* const to = header.bytes.data();
  wire::store_u8(to, v4 ? 4 : 6);
  wire::store_u8(to + 1, static_cast<std::uint8_t>(header.count));
  wire::store_be16(to + 2, source.port);
  store_ip(to + (v4 ? 4 : 8), source);  // IPv6 has its flow label in between; ours is 0.
  return header;
}

std::optional<DecodedSource> decode_source(std::span<const std::byte> message) {
  if (message.size() < kSourceV4Bytes) return std::nullopt;
  const std::byte* const from = message.data();
  const std::uint8_t version = wire::load_u8(from);
  const std::size_t bytes = wire::load_u8(from + 1);
  const bool v4 = version == 4 && bytes == kSourceV4Bytes;
  const bool v6 = version == 6 && bytes == kSourceV6Bytes;
  if (!(v4 || v6) || message.size() < bytes) return std::nullopt;
  DecodedSource decoded{.source = load_ip(from + (v4 ? 4 : 8), v4), .header_bytes = bytes};
  decoded.source.port = wire::load_be16(from + 2);
  return decoded;
}

}  // namespace isthmus::rdmacm
