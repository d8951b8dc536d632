#include "wire/icrc.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "wire/byte_order.h"
#include "wire/crc32_polynomial.h"
#include "wire/opcode.h"

namespace isthmus::wire {
namespace {

// The register after the 8 bytes of ones that stand for an InfiniBand LRH.
constexpr std::uint32_t kAfterDummyLrh = 0xdebb'20e3;

// From the IP ID to the end of the UDP header: what the packet's length adds to.
constexpr std::size_t kIpv4IdOffset = 4;
constexpr std::uint32_t kBytesFromIdToPayload = kIpv4Bytes - kIpv4IdOffset + kUdpBytes;
constexpr std::size_t kFecnByteOffset = 4;  // In the BTH.

// The IP and UDP headers as the sum sees them. Returns the bytes written.
std::size_t masked_headers(const IcrcFlow& flow, std::size_t udp_payload_bytes, std::uint16_t ip_id,
                           std::byte* out) {
  const std::size_t udp_bytes = kUdpBytes + udp_payload_bytes + kIcrcBytes;
  std::byte* at = out;
  if (flow.source.is_v4()) {
    store_be16(at, 0x45ff);  // Version, header length; TOS masked.
    store_be16(at + 2, static_cast<std::uint16_t>(kIpv4Bytes + udp_bytes));
    store_be16(at + 4, ip_id);
    store_be16(at + 6, kIpv4DontFragment);
    store_be32(at + 8, 0xff00'ffff | kIpProtocolUdp << 16);  // TTL and checksum masked.
    std::memcpy(at + 12, flow.source.bytes().data() + 12, 4);
    std::memcpy(at + 16, flow.destination.bytes().data() + 12, 4);
    at += kIpv4Bytes;
  } else {
    store_be32(at, 0x6fff'ffff);  // Version; traffic class and flow label masked.
    store_be16(at + 4, static_cast<std::uint16_t>(udp_bytes));
    store_be16(at + 6, kIpProtocolUdp << 8 | 0xff);  // Hop limit masked.
    std::memcpy(at + 8, flow.source.bytes().data(), 16);
    std::memcpy(at + 24, flow.destination.bytes().data(), 16);
    at += kIpv6Bytes;
  }
  store_be16(at, flow.source_port);
  store_be16(at + 2, flow.destination_port);
  store_be16(at + 4, static_cast<std::uint16_t>(udp_bytes));
  store_be16(at + 6, 0xffff);
  return static_cast<std::size_t>(at + kUdpBytes - out);
}

}  // namespace

std::uint32_t icrc_start(const IcrcFlow& flow, std::span<const std::byte> headers,
                         std::size_t udp_payload_bytes, std::uint16_t ip_id) {
  ISTHMUS_ASSERT(headers.size() >= kBthBytes && headers.size() <= udp_payload_bytes);
  ISTHMUS_ASSERT(flow.source.is_v4() == flow.destination.is_v4());
  // One run over a copy is faster than two over the parts, while copying is cheaper than the end of
  // a run (about 15 ns). Of a longer packet only so much is copied that the first run ends at 64.
  constexpr std::size_t kCopied = 256;
  constexpr std::size_t kFirstRun = 64;
  static_assert(kFirstRun >= kIpv6Bytes + kUdpBytes + kBthBytes);
  std::byte start[kIpv6Bytes + kUdpBytes + kCopied];
  const std::size_t outer_bytes = masked_headers(flow, udp_payload_bytes, ip_id, start);
  const std::size_t copied = headers.size() <= kCopied ? headers.size() : kFirstRun - outer_bytes;
  std::memcpy(start + outer_bytes, headers.data(), copied);
  start[outer_bytes + kFecnByteOffset] = std::byte{0xff};
  std::uint32_t state = crc32_update(kAfterDummyLrh, {start, outer_bytes + copied});
  if (copied < headers.size()) state = crc32_update(state, headers.subspan(copied));
  return state;
}

std::uint32_t icrc(const IcrcFlow& flow, std::span<const std::byte> udp_payload,
                   std::uint16_t ip_id) {
  return icrc_finish(icrc_start(flow, udp_payload, udp_payload.size(), ip_id));
}

namespace {

IcrcVerdict judge_difference(std::uint32_t difference, std::uint32_t inverse) {
  // What would have to be xored to the four bytes from the IP ID on: ID, then flags and offset. The
  // first byte is the lowest.
  const std::uint32_t change = crc32_multiply(difference, inverse);
  constexpr std::uint32_t kIdMask = 0xffff;
  constexpr std::uint32_t kDontFragmentMask = 0x40'0000;  // Set in the sum, so clear in the packet.
  if ((change & ~(kIdMask | kDontFragmentMask)) != 0) return {};
  return {.match = IcrcMatch::kRecovered,
          .dont_fragment = (change & kDontFragmentMask) == 0,
          .ip_id = __builtin_bswap16(static_cast<std::uint16_t>(change & kIdMask))};
}

std::uint32_t inverse_power(std::uint32_t bytes) {
  return crc32_x_power(kCrc32Order - std::uint64_t{8} * bytes);
}

template <class InverseFor>
IcrcVerdict verify_with(const IcrcFlow& flow, std::span<const std::byte> udp_payload,
                        InverseFor inverse_for) {
  if (udp_payload.size() < kBthBytes + kIcrcBytes || udp_payload.size() > kMaxUdpPayloadBytes) {
    return {};
  }
  if (flow.source.is_v4() != flow.destination.is_v4()) return {};
  const std::span<const std::byte> covered = udp_payload.first(udp_payload.size() - kIcrcBytes);
  const std::uint32_t stored = load_le32(covered.data() + covered.size());
  const std::uint32_t difference = stored ^ icrc(flow, covered, 0);
  if (difference == 0) return {.match = IcrcMatch::kExact};
  if (!flow.source.is_v4()) return {};
  const auto bytes = static_cast<std::uint32_t>(kBytesFromIdToPayload + covered.size());
  return judge_difference(difference, inverse_for(bytes));
}

}  // namespace

IcrcVerdict IcrcVerifier::verify(const IcrcFlow& flow, std::span<const std::byte> udp_payload) {
  return verify_with(flow, udp_payload, [this](std::uint32_t bytes) { return inverse_for(bytes); });
}

std::uint32_t IcrcVerifier::inverse_for(std::uint32_t bytes) {
  Entry& entry = entries_[bytes / 4 % kEntries];
  if (entry.bytes != bytes) entry = {.bytes = bytes, .inverse = inverse_power(bytes)};
  return entry.inverse;
}

IcrcVerdict verify_icrc(const IcrcFlow& flow, std::span<const std::byte> udp_payload) {
  return verify_with(flow, udp_payload, inverse_power);
}

}  // namespace isthmus::wire
