// The base transport header and the extended headers of InfiniBand packets, as values.
//
// Each encode() writes the header's full length at `out` and returns it; each decode_x() reads
// that many bytes. The callers have checked the room. Values are in host order, except immediate
// data, which programs hand over in network order and which is carried untouched.
//
// Spec: InfiniBand Architecture vol. 1, 9.2 to 9.3.
#pragma once

#include <cstddef>
#include <cstdint>

#include "wire/byte_order.h"
#include "wire/opcode.h"

namespace isthmus::wire {

struct Bth {
  Opcode opcode = Opcode::kRcSendOnly;
  bool solicited = false;
  bool migreq = false;
  std::uint8_t pad_count = 0;          // 0..3 bytes after the payload.
  std::uint8_t transport_version = 0;  // 4 bits; 0 is the only one defined.
  std::uint16_t pkey = 0xffff;
  bool fecn = false;
  bool becn = false;
  std::uint8_t reserved6 = 0;  // Beside FECN and BECN, not covered by the ICRC.
  std::uint32_t dest_qpn = 0;  // 24 bits.
  bool ack_request = false;
  std::uint8_t reserved7 = 0;
  std::uint32_t psn = 0;  // 24 bits.
  friend bool operator==(const Bth&, const Bth&) = default;
};

struct Reth {
  std::uint64_t va = 0;
  std::uint32_t rkey = 0;
  std::uint32_t length = 0;  // Bytes of the whole message.
  friend bool operator==(const Reth&, const Reth&) = default;
};

struct AtomicEth {
  std::uint64_t va = 0;
  std::uint32_t rkey = 0;
  std::uint64_t swap_add = 0;
  std::uint64_t compare = 0;  // Present on the wire for fetch-and-add too, where it means nothing.
  friend bool operator==(const AtomicEth&, const AtomicEth&) = default;
};

struct Aeth {
  std::uint8_t syndrome = 0;  // See aeth.h.
  std::uint32_t msn = 0;      // 24 bits.
  friend bool operator==(const Aeth&, const Aeth&) = default;
};

struct AtomicAckEth {
  std::uint64_t original = 0;
  friend bool operator==(const AtomicAckEth&, const AtomicAckEth&) = default;
};

struct Deth {
  std::uint32_t qkey = 0;
  std::uint8_t reserved = 0;
  std::uint32_t src_qpn = 0;  // 24 bits.
  friend bool operator==(const Deth&, const Deth&) = default;
};

struct Imm {
  std::uint32_t network_order = 0;  // The four bytes as they lie in memory, like ibv imm_data.
  friend bool operator==(const Imm&, const Imm&) = default;
};

struct Ieth {
  std::uint32_t rkey = 0;
  friend bool operator==(const Ieth&, const Ieth&) = default;
};

struct XrcEth {
  std::uint8_t reserved = 0;
  std::uint32_t srq_number = 0;  // 24 bits.
  friend bool operator==(const XrcEth&, const XrcEth&) = default;
};

struct Feth {
  std::uint32_t raw = 0;  // Placement type in bits 0..3, selectivity level in bits 4..5.
  friend bool operator==(const Feth&, const Feth&) = default;
};

inline std::size_t encode(const Bth& bth, std::byte* out) {
  store_u8(out, static_cast<std::uint8_t>(bth.opcode));
  store_u8(out + 1,
           static_cast<std::uint8_t>((bth.solicited ? 0x80 : 0) | (bth.migreq ? 0x40 : 0) |
                                     ((bth.pad_count & 3) << 4) | (bth.transport_version & 0xf)));
  store_be16(out + 2, bth.pkey);
  store_be32(out + 4, (bth.fecn ? 0x8000'0000u : 0) | (bth.becn ? 0x4000'0000u : 0) |
                          (std::uint32_t{bth.reserved6} & 0x3f) << 24 | (bth.dest_qpn & 0xff'ffff));
  store_be32(out + 8, (bth.ack_request ? 0x8000'0000u : 0) |
                          (std::uint32_t{bth.reserved7} & 0x7f) << 24 | (bth.psn & 0xff'ffff));
  return kBthBytes;
}

inline Bth decode_bth(const std::byte* in) {
  const std::uint8_t flags = load_u8(in + 1);
  const std::uint32_t destination = load_be32(in + 4);
  const std::uint32_t sequence = load_be32(in + 8);
  return Bth{.opcode = static_cast<Opcode>(load_u8(in)),
             .solicited = (flags & 0x80) != 0,
             .migreq = (flags & 0x40) != 0,
             .pad_count = static_cast<std::uint8_t>((flags >> 4) & 3),
             .transport_version = static_cast<std::uint8_t>(flags & 0xf),
             .pkey = load_be16(in + 2),
             .fecn = (destination & 0x8000'0000u) != 0,
             .becn = (destination & 0x4000'0000u) != 0,
             .reserved6 = static_cast<std::uint8_t>((destination >> 24) & 0x3f),
             .dest_qpn = destination & 0xff'ffff,
             .ack_request = (sequence & 0x8000'0000u) != 0,
             .reserved7 = static_cast<std::uint8_t>((sequence >> 24) & 0x7f),
             .psn = sequence & 0xff'ffff};
}

inline std::size_t encode(const Reth& reth, std::byte* out) {
  store_be64(out, reth.va);
  store_be32(out + 8, reth.rkey);
  store_be32(out + 12, reth.length);
  return kRethBytes;
}

inline Reth decode_reth(const std::byte* in) {
  return Reth{.va = load_be64(in), .rkey = load_be32(in + 8), .length = load_be32(in + 12)};
}

inline std::size_t encode(const AtomicEth& atomic, std::byte* out) {
  store_be64(out, atomic.va);
  store_be32(out + 8, atomic.rkey);
  store_be64(out + 12, atomic.swap_add);
  store_be64(out + 20, atomic.compare);
  return kAtomicEthBytes;
}

inline AtomicEth decode_atomic_eth(const std::byte* in) {
  return AtomicEth{.va = load_be64(in),
                   .rkey = load_be32(in + 8),
                   .swap_add = load_be64(in + 12),
                   .compare = load_be64(in + 20)};
}

inline std::size_t encode(const Aeth& aeth, std::byte* out) {
  store_be32(out, std::uint32_t{aeth.syndrome} << 24 | (aeth.msn & 0xff'ffff));
  return kAethBytes;
}

inline Aeth decode_aeth(const std::byte* in) {
  return Aeth{.syndrome = load_u8(in), .msn = load_be24(in + 1)};
}

inline std::size_t encode(const AtomicAckEth& ack, std::byte* out) {
  store_be64(out, ack.original);
  return kAtomicAckEthBytes;
}

inline AtomicAckEth decode_atomic_ack_eth(const std::byte* in) {
  return AtomicAckEth{.original = load_be64(in)};
}

inline std::size_t encode(const Deth& deth, std::byte* out) {
  store_be32(out, deth.qkey);
  store_be32(out + 4, std::uint32_t{deth.reserved} << 24 | (deth.src_qpn & 0xff'ffff));
  return kDethBytes;
}

inline Deth decode_deth(const std::byte* in) {
  return Deth{.qkey = load_be32(in), .reserved = load_u8(in + 4), .src_qpn = load_be24(in + 5)};
}

inline std::size_t encode(const Imm& imm, std::byte* out) {
  std::memcpy(out, &imm.network_order, kImmediateBytes);
  return kImmediateBytes;
}

inline Imm decode_imm(const std::byte* in) {
  Imm imm;
  std::memcpy(&imm.network_order, in, kImmediateBytes);
  return imm;
}

inline std::size_t encode(const Ieth& ieth, std::byte* out) {
  store_be32(out, ieth.rkey);
  return kIethBytes;
}

inline Ieth decode_ieth(const std::byte* in) { return Ieth{.rkey = load_be32(in)}; }

inline std::size_t encode(const XrcEth& xrc, std::byte* out) {
  store_be32(out, std::uint32_t{xrc.reserved} << 24 | (xrc.srq_number & 0xff'ffff));
  return kXrcEthBytes;
}

inline XrcEth decode_xrc_eth(const std::byte* in) {
  return XrcEth{.reserved = load_u8(in), .srq_number = load_be24(in + 1)};
}

inline std::size_t encode(const Feth& feth, std::byte* out) {
  store_be32(out, feth.raw);
  return kFethBytes;
}

inline Feth decode_feth(const std::byte* in) { return Feth{.raw = load_be32(in)}; }

}  // namespace isthmus::wire
