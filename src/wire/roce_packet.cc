#include "wire/roce_packet.h"

#include <cstring>

#include "base/assert.h"

namespace isthmus::wire {

std::expected<RocePacket, DecodeError> decode_roce(std::span<const std::byte> udp_payload) {
  if (udp_payload.size() < kBthBytes + kIcrcBytes) return std::unexpected(DecodeError::kTooShort);

  std::expected<RocePacket, DecodeError> result;
  RocePacket& packet = *result;
  const std::byte* at = udp_payload.data();
  packet.bth = decode_bth(at);
  const OpcodeInfo& op = info(packet.bth.opcode);
  if (!op.valid) return std::unexpected(DecodeError::kUnknownOpcode);
  if (packet.bth.transport_version != 0) return std::unexpected(DecodeError::kBadVersion);
  if (udp_payload.size() < op.header_bytes + kIcrcBytes) {
    return std::unexpected(DecodeError::kTooShort);
  }
  if (udp_payload.size() % 4 != 0) return std::unexpected(DecodeError::kBadLength);
  const std::size_t padded_bytes = udp_payload.size() - op.header_bytes - kIcrcBytes;
  if (packet.bth.pad_count > padded_bytes) return std::unexpected(DecodeError::kBadPadding);
  if (!op.has_payload && padded_bytes != 0) return std::unexpected(DecodeError::kTrailingBytes);

  at += kBthBytes;
  if (op.has_xrceth) {
    packet.xrc = decode_xrc_eth(at);
    at += kXrcEthBytes;
  }
  if (op.has_deth) {
    packet.deth = decode_deth(at);
    at += kDethBytes;
  }
  if (op.has_feth) {
    packet.feth = decode_feth(at);
    at += kFethBytes;
  }
  if (op.has_reth) {
    packet.reth = decode_reth(at);
    at += kRethBytes;
  }
  if (op.has_atomic_eth) {
    packet.atomic = decode_atomic_eth(at);
    at += kAtomicEthBytes;
  }
  if (op.has_aeth) {
    packet.aeth = decode_aeth(at);
    at += kAethBytes;
  }
  if (op.has_atomic_ack_eth) {
    packet.atomic_ack = decode_atomic_ack_eth(at);
    at += kAtomicAckEthBytes;
  }
  if (op.has_immediate) {
    packet.imm = decode_imm(at);
    at += kImmediateBytes;
  }
  if (op.has_invalidate) {
    packet.ieth = decode_ieth(at);
    at += kIethBytes;
  }
  ISTHMUS_ASSERT(at == udp_payload.data() + op.header_bytes);
  packet.payload = {at, padded_bytes - packet.bth.pad_count};
  return result;
}

std::size_t encode_headers(const RocePacket& packet, std::byte* out) {
  const OpcodeInfo& op = info(packet.bth.opcode);
  ISTHMUS_ASSERT(op.valid);
  std::byte* at = out;
  at += encode(packet.bth, at);
  if (op.has_xrceth) at += encode(packet.xrc, at);
  if (op.has_deth) at += encode(packet.deth, at);
  if (op.has_feth) at += encode(packet.feth, at);
  if (op.has_reth) at += encode(packet.reth, at);
  if (op.has_atomic_eth) at += encode(packet.atomic, at);
  if (op.has_aeth) at += encode(packet.aeth, at);
  if (op.has_atomic_ack_eth) at += encode(packet.atomic_ack, at);
  if (op.has_immediate) at += encode(packet.imm, at);
  if (op.has_invalidate) at += encode(packet.ieth, at);
  ISTHMUS_ASSERT(at == out + op.header_bytes);
  return op.header_bytes;
}

std::size_t encode_roce(const RocePacket& packet, std::byte* out) {
  const std::size_t header_bytes = encode_headers(packet, out);
  const std::uint8_t pad = pad_count(packet.payload.size());
  // The pad count shares its byte with flags that encode_headers has written.
  out[1] = (out[1] & std::byte{0xcf}) | std::byte(pad << 4);
  std::byte* at = out + header_bytes;
  if (!packet.payload.empty()) std::memcpy(at, packet.payload.data(), packet.payload.size());
  at += packet.payload.size();
  std::memset(at, 0, pad);
  return header_bytes + packet.payload.size() + pad;
}

}  // namespace isthmus::wire
