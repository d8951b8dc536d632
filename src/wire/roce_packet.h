// A RoCEv2 packet, which is the payload of a UDP datagram to port 4791:
//
//     BTH | extended headers, as the opcode says | payload | 0..3 bytes of padding | ICRC
//
// Input: decode_roce takes whatever arrived at the port. It checks syntax (lengths, opcode,
// version); what the fields mean, and the ICRC, are for others to check.
// Spec: InfiniBand Architecture vol. 1, 9.2; annex A17 (RoCEv2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>

#include "wire/bth.h"
#include "wire/decode_error.h"
#include "wire/opcode.h"

namespace isthmus::wire {

inline constexpr std::uint16_t kRoceUdpPort = 4791;
inline constexpr std::size_t kMaxPathMtuBytes = 4096;
// The most that a RoCE datagram holds: longest headers, largest path MTU, ICRC. The MTU is a
// multiple of 4, so a full payload has no padding.
inline constexpr std::size_t kMaxRoceBytes = kMaxHeaderBytes + kMaxPathMtuBytes + kIcrcBytes;
static_assert(kMaxPathMtuBytes % 4 == 0 && kMaxRoceBytes == 4144);

// Only the headers that the opcode has are meaningful; the others are zero after decoding and
// ignored when encoding.
struct RocePacket {
  Bth bth;
  Reth reth;
  AtomicEth atomic;
  Aeth aeth;
  AtomicAckEth atomic_ack;
  Deth deth;
  Imm imm;
  Ieth ieth;
  XrcEth xrc;
  Feth feth;
  std::span<const std::byte> payload;  // Borrowed; without padding and ICRC.
};

// Padding that a payload of this length needs: it always ends on a multiple of 4.
constexpr std::uint8_t pad_count(std::size_t payload_bytes) {
  return static_cast<std::uint8_t>((4 - payload_bytes % 4) % 4);
}

// `udp_payload` is the whole datagram, the ICRC included.
std::expected<RocePacket, DecodeError> decode_roce(std::span<const std::byte> udp_payload);

// Writes BTH and exactly the extended headers of the opcode, info(opcode).header_bytes in all, and
// returns that length. `out` has room for kMaxHeaderBytes. The padding is bth.pad_count as given.
// The opcode must be a valid one: it is ours.
std::size_t encode_headers(const RocePacket& packet, std::byte* out);

// Writes headers, payload and padding, and sets the pad count by the payload's length. Returns the
// bytes written; the ICRC goes after them. `out` has room for header_bytes + payload + 3.
std::size_t encode_roce(const RocePacket& packet, std::byte* out);

}  // namespace isthmus::wire
