// The invariant CRC of RoCEv2: CRC-32 over the parts of IP header, UDP header and InfiniBand packet
// that no router changes.
//
// Primer: the polynomial is zlib's. The sum starts with 8 bytes of ones (where an InfiniBand LRH
// would be), then the IP header with TOS, TTL and checksum (IPv6: traffic class, flow label, hop
// limit) as ones, the UDP header with its checksum as ones, the BTH with its FECN/BECN byte as
// ones, and all the rest as it is. It is stored little-endian behind the padding.
//
// A UDP socket does not show the IP ID of a datagram, which for IPv4 is covered. But the CRC is
// linear: a wrong ID xors the sum by M(id), where M depends only on the packet's length and can be
// inverted. So the receiver computes the sum for ID 0, takes the difference to the stored one back
// through M, and accepts if what comes out is an ID: nonzero bits only where the ID lies. That
// gives up 16 of the 32 check bits (17, as packets without the DF flag are accepted as well), and
// yields the ID, so that a caller who knows more about the sender can ask for more.
//
// Threading: all functions from any thread. An IcrcVerifier belongs to one thread at a time.
// Spec: InfiniBand Architecture vol. 1, 7.8.1; annex A17 (RoCEv2).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/ip.h"

namespace isthmus::wire {

// Carries a CRC-32 state over more bytes. The raw register: start with kCrc32Start and invert at
// the end for zlib's crc32(). Picks the fastest implementation of the processor on the first call.
std::uint32_t crc32_update(std::uint32_t state, std::span<const std::byte> bytes);

inline constexpr std::uint32_t kCrc32Start = 0xffff'ffff;

// What the ICRC covers outside the datagram's payload. Both addresses are of one family.
struct IcrcFlow {
  IpAddress source;
  IpAddress destination;
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 4791;
};

// The value to store with store_le32 behind `udp_payload` (which has everything but the ICRC, from
// the BTH on, at least 12 bytes). IPv4: the packet has the DF flag set and this ID; a Linux UDP
// socket that is not connected and has IP_MTU_DISCOVER=DO sends ID 0, and segments of one GSO send
// have 0, 1, 2... IPv6: `ip_id` is not used.
std::uint32_t icrc(const IcrcFlow& flow, std::span<const std::byte> udp_payload,
                   std::uint16_t ip_id = 0);

// The same for a packet whose payload lies in pieces: start with the headers (BTH and extended
// headers), update over payload and padding, finish. `udp_payload_bytes` is that of the whole
// datagram without ICRC.
std::uint32_t icrc_start(const IcrcFlow& flow, std::span<const std::byte> headers,
                         std::size_t udp_payload_bytes, std::uint16_t ip_id = 0);
inline std::uint32_t icrc_finish(std::uint32_t state) { return ~state; }

enum class IcrcMatch : std::uint8_t {
  kMismatch,   // Drop: damaged, or addresses and ports were translated on the way.
  kExact,      // All 32 bits agree (IPv6, or IPv4 with ID 0 and DF).
  kRecovered,  // IPv4: agrees for exactly one IP ID, see `ip_id`.
};

struct IcrcVerdict {
  IcrcMatch match = IcrcMatch::kMismatch;
  bool dont_fragment = true;
  std::uint16_t ip_id = 0;
  bool accepted() const { return match != IcrcMatch::kMismatch; }
};

// Checks arriving packets; holds the inverse of M for the lengths seen last.
class IcrcVerifier {
 public:
  // `udp_payload` is the whole datagram, the stored ICRC last. Too short a one is a mismatch.
  IcrcVerdict verify(const IcrcFlow& flow, std::span<const std::byte> udp_payload);

 private:
  // Lengths are multiples of 4, so 64 entries hold the lengths of 256 bytes in a row; the ones that
  // a connection uses (full MTU, acknowledgements, one tail) rarely meet in one entry.
  static constexpr std::size_t kEntries = 64;
  struct Entry {
    std::uint32_t bytes = 0;    // Covered bytes from the ID on; 0 is an empty entry.
    std::uint32_t inverse = 0;  // x^(-8 * bytes) modulo the polynomial.
  };
  std::uint32_t inverse_for(std::uint32_t bytes);

  std::array<Entry, kEntries> entries_{};
};

// The same without a cache, for tools and tests.
IcrcVerdict verify_icrc(const IcrcFlow& flow, std::span<const std::byte> udp_payload);

// For tests and benchmarks: every implementation, and whether this processor has it.
struct Crc32Implementation {
  const char* name;
  std::uint32_t (*update)(std::uint32_t state, std::span<const std::byte> bytes);
  bool supported;
};
std::array<Crc32Implementation, 4> crc32_implementations();

}  // namespace isthmus::wire
