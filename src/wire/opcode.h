// The operation codes of the base transport header, and what each says about its packet: the
// service, the kind of operation, the position in the message, which extended headers follow.
//
// Primer: the top three bits name the transport service, the low five the operation. A message
// longer than the path MTU is sent as First, Middle..., Last; a shorter one as Only, which is first
// and last at once.
//
// Spec: InfiniBand Architecture vol. 1, 9.2.1; annex A14 (XRC), A17 (RoCEv2: CNP), A19 (FLUSH,
// ATOMIC WRITE). Reliable datagram (0x40..) exists nowhere and is not here.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace isthmus::wire {

enum class Opcode : std::uint8_t {
  kRcSendFirst = 0x00,
  kRcSendMiddle = 0x01,
  kRcSendLast = 0x02,
  kRcSendLastImm = 0x03,
  kRcSendOnly = 0x04,
  kRcSendOnlyImm = 0x05,
  kRcWriteFirst = 0x06,
  kRcWriteMiddle = 0x07,
  kRcWriteLast = 0x08,
  kRcWriteLastImm = 0x09,
  kRcWriteOnly = 0x0a,
  kRcWriteOnlyImm = 0x0b,
  kRcReadRequest = 0x0c,
  kRcReadResponseFirst = 0x0d,
  kRcReadResponseMiddle = 0x0e,
  kRcReadResponseLast = 0x0f,
  kRcReadResponseOnly = 0x10,
  kRcAck = 0x11,
  kRcAtomicAck = 0x12,
  kRcCompareSwap = 0x13,
  kRcFetchAdd = 0x14,
  kRcSendLastInvalidate = 0x16,
  kRcSendOnlyInvalidate = 0x17,
  kRcFlush = 0x1c,
  kRcAtomicWrite = 0x1d,

  kUcSendFirst = 0x20,
  kUcSendMiddle = 0x21,
  kUcSendLast = 0x22,
  kUcSendLastImm = 0x23,
  kUcSendOnly = 0x24,
  kUcSendOnlyImm = 0x25,
  kUcWriteFirst = 0x26,
  kUcWriteMiddle = 0x27,
  kUcWriteLast = 0x28,
  kUcWriteLastImm = 0x29,
  kUcWriteOnly = 0x2a,
  kUcWriteOnlyImm = 0x2b,

  kUdSendOnly = 0x64,
  kUdSendOnlyImm = 0x65,

  kCnp = 0x81,

  kXrcSendFirst = 0xa0,
  kXrcSendMiddle = 0xa1,
  kXrcSendLast = 0xa2,
  kXrcSendLastImm = 0xa3,
  kXrcSendOnly = 0xa4,
  kXrcSendOnlyImm = 0xa5,
  kXrcWriteFirst = 0xa6,
  kXrcWriteMiddle = 0xa7,
  kXrcWriteLast = 0xa8,
  kXrcWriteLastImm = 0xa9,
  kXrcWriteOnly = 0xaa,
  kXrcWriteOnlyImm = 0xab,
  kXrcReadRequest = 0xac,
  kXrcReadResponseFirst = 0xad,
  kXrcReadResponseMiddle = 0xae,
  kXrcReadResponseLast = 0xaf,
  kXrcReadResponseOnly = 0xb0,
  kXrcAck = 0xb1,
  kXrcAtomicAck = 0xb2,
  kXrcCompareSwap = 0xb3,
  kXrcFetchAdd = 0xb4,
  kXrcSendLastInvalidate = 0xb6,
  kXrcSendOnlyInvalidate = 0xb7,
  kXrcFlush = 0xbc,
  kXrcAtomicWrite = 0xbd,
};

enum class Service : std::uint8_t { kRc, kUc, kUd, kXrc, kCnp };

enum class Kind : std::uint8_t {
  kSend,
  kWrite,
  kReadRequest,
  kReadResponse,
  kAck,
  kAtomicRequest,
  kAtomicAck,
  kFlush,
  kAtomicWrite,
  kCongestionNotification,
};

// The value of the top three bits: the first opcode of each service.
enum class OpcodeBase : std::uint8_t { kRc = 0x00, kUc = 0x20, kUd = 0x60, kXrc = 0xa0 };

struct OpcodeInfo {
  bool valid = false;
  Service service = Service::kRc;
  Kind kind = Kind::kSend;
  bool first = false;  // Only is first and last.
  bool last = false;
  bool request = false;  // From requester to responder.
  bool has_reth = false;
  bool has_atomic_eth = false;
  bool has_aeth = false;
  bool has_atomic_ack_eth = false;
  bool has_deth = false;
  bool has_immediate = false;
  bool has_invalidate = false;
  bool has_xrceth = false;
  bool has_feth = false;
  bool has_payload = false;       // May carry one; its length may still be 0.
  std::uint8_t header_bytes = 0;  // BTH and extended headers.
};

inline constexpr std::size_t kBthBytes = 12;
inline constexpr std::size_t kRethBytes = 16;
inline constexpr std::size_t kAtomicEthBytes = 28;
inline constexpr std::size_t kAethBytes = 4;
inline constexpr std::size_t kAtomicAckEthBytes = 8;
inline constexpr std::size_t kDethBytes = 8;
inline constexpr std::size_t kImmediateBytes = 4;
inline constexpr std::size_t kIethBytes = 4;
inline constexpr std::size_t kXrcEthBytes = 4;
inline constexpr std::size_t kFethBytes = 4;
inline constexpr std::size_t kIcrcBytes = 4;
// The longest: BTH, XRCETH and AtomicETH.
inline constexpr std::size_t kMaxHeaderBytes = kBthBytes + kXrcEthBytes + kAtomicEthBytes;

// What an operation of the reliable service is; the other services use a subset of its numbers.
constexpr OpcodeInfo describe_operation(std::uint8_t operation) {
  OpcodeInfo info;
  if (operation <= 0x0b) {  // SEND and WRITE: First, Middle, Last, LastImm, Only, OnlyImm.
    const std::uint8_t position = operation % 6;
    info.kind = operation < 6 ? Kind::kSend : Kind::kWrite;
    info.first = position == 0 || position >= 4;
    info.last = position >= 2;
    info.has_immediate = position == 3 || position == 5;
    info.has_reth = info.kind == Kind::kWrite && info.first;
    info.request = info.has_payload = info.valid = true;
    return info;
  }
  info.first = info.last = info.valid = true;
  switch (operation) {
    case 0x0c:
      info.kind = Kind::kReadRequest;
      info.request = info.has_reth = true;
      break;
    case 0x0d:
    case 0x0e:
    case 0x0f:
    case 0x10:
      info.kind = Kind::kReadResponse;
      info.first = operation == 0x0d || operation == 0x10;
      info.last = operation >= 0x0f;
      info.has_aeth = operation != 0x0e;
      info.has_payload = true;
      break;
    case 0x11:
      info.kind = Kind::kAck;
      info.has_aeth = true;
      break;
    case 0x12:
      info.kind = Kind::kAtomicAck;
      info.has_aeth = info.has_atomic_ack_eth = true;
      break;
    case 0x13:
    case 0x14:
      info.kind = Kind::kAtomicRequest;
      info.request = info.has_atomic_eth = true;
      break;
    case 0x16:
    case 0x17:
      info.kind = Kind::kSend;
      info.first = operation == 0x17;
      info.request = info.has_invalidate = info.has_payload = true;
      break;
    case 0x1c:
      info.kind = Kind::kFlush;
      info.request = info.has_feth = info.has_reth = true;
      break;
    case 0x1d:
      info.kind = Kind::kAtomicWrite;
      info.request = info.has_reth = info.has_payload = true;
      break;
    default:
      return OpcodeInfo{};
  }
  return info;
}

constexpr OpcodeInfo describe_opcode(std::uint8_t opcode) {
  const std::uint8_t operation = opcode & 0x1f;
  OpcodeInfo info;
  switch (opcode & 0xe0) {
    case 0x00:
      info = describe_operation(operation);
      break;
    case 0x20:
      if (operation <= 0x0b) info = describe_operation(operation);
      info.service = Service::kUc;
      break;
    case 0x60:
      if (operation == 0x04 || operation == 0x05) info = describe_operation(operation);
      info.service = Service::kUd;
      info.has_deth = info.valid;
      break;
    case 0x80:
      if (operation == 0x01) {
        info.kind = Kind::kCongestionNotification;
        info.valid = info.first = info.last = info.has_payload = true;
      }
      info.service = Service::kCnp;
      break;
    case 0xa0:
      info = describe_operation(operation);
      info.service = Service::kXrc;
      info.has_xrceth = info.request;
      break;
    default:
      break;
  }
  if (!info.valid) return OpcodeInfo{};
  info.header_bytes = static_cast<std::uint8_t>(
      kBthBytes + (info.has_xrceth ? kXrcEthBytes : 0) + (info.has_deth ? kDethBytes : 0) +
      (info.has_feth ? kFethBytes : 0) + (info.has_reth ? kRethBytes : 0) +
      (info.has_atomic_eth ? kAtomicEthBytes : 0) + (info.has_aeth ? kAethBytes : 0) +
      (info.has_atomic_ack_eth ? kAtomicAckEthBytes : 0) +
      (info.has_immediate ? kImmediateBytes : 0) + (info.has_invalidate ? kIethBytes : 0));
  return info;
}

constexpr std::array<OpcodeInfo, 256> make_opcode_table() {
  std::array<OpcodeInfo, 256> table{};
  for (std::size_t i = 0; i < table.size(); ++i)
    table[i] = describe_opcode(static_cast<std::uint8_t>(i));
  return table;
}

inline constexpr std::array<OpcodeInfo, 256> kOpcodeTable = make_opcode_table();

// Total: every one of the 256 values has an entry; look at `valid` first for one from outside.
constexpr const OpcodeInfo& info(Opcode opcode) {
  return kOpcodeTable[static_cast<std::uint8_t>(opcode)];
}

// "RC" and "SEND Only", for people to read; "unknown" for what is not valid.
const char* service_name(Opcode opcode);
const char* operation_name(Opcode opcode);

}  // namespace isthmus::wire
