// The wire format of stream rsockets: what the two ends of a connection write into each other.
//
// Primer: data moves by RDMA writes with immediate into the peer's receive buffer. Each end keeps a
// small list of targets that the peer fills with the address of its next free buffer; a buffer that
// was named is used up before the next one. The immediate word says what was written:
//
//     31..29   28..0
//     data     bytes written into the buffer of the current target
//     credit   data messages the receiver takes in total, modulo 2^16; a write of 16 bytes with it
//              is a new target, one of no bytes is credit alone
//     iomap    index of the entry of the mapping list that was written
//     control  disconnect, keepalive or shutdown
//
// Connecting exchanges ConnectData as private data of REQ and REP.
//
// Spec: docs/rsocket of rdma-core; interoperates with its librdmacm.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

namespace isthmus::rdmacm {

enum class StreamOp : std::uint32_t {
  kData = 0,
  kDirectWrite = 2,  // In tags of our own writes; never on the wire.
  kCredit = 4,
  kIomap = 6,
  kControl = 7,
};

enum class StreamControl : std::uint32_t { kDisconnect = 0, kKeepalive = 1, kShutdown = 2 };

constexpr unsigned kOpShift = 29;
constexpr std::uint32_t kMessageDataMask = (1u << kOpShift) - 1;

constexpr std::uint32_t make_message(StreamOp op, std::uint32_t data) {
  return (static_cast<std::uint32_t>(op) << kOpShift) | (data & kMessageDataMask);
}
constexpr StreamOp op_of(std::uint32_t message) {
  return static_cast<StreamOp>(message >> kOpShift);
}
constexpr std::uint32_t data_of(std::uint32_t message) { return message & kMessageDataMask; }

// A buffer of one end as the other writes to it. In a target list it stands in the byte order of
// the list's owner.
struct Target {
  std::uint64_t address = 0;
  std::uint32_t key = 0;
  std::uint32_t length = 0;  // Bytes; in ConnectData's target list, entries.
};
static_assert(sizeof(Target) == 16);

struct IomapEntry {
  std::uint64_t offset = 0;
  Target target;
};
static_assert(sizeof(IomapEntry) == 24);

constexpr std::uint32_t kTargetCount = 2;

// Counts of mappings travel as 8 bits: up to 128 as they are, larger ones in steps of 256.
std::uint8_t iomap_scale_of(std::uint32_t count);
std::uint32_t iomap_count_of(std::uint8_t scale);

constexpr std::uint8_t kStreamVersion = 1;
constexpr std::uint8_t kFlagBigEndian = 1;
constexpr std::uint8_t kFlagIomap = 2;
constexpr std::size_t kConnectDataBytes = 40;

struct ConnectData {
  std::uint8_t flags = 0;
  std::uint16_t credits = 0;
  std::uint32_t iomap_count = 0;
  Target target_list;  // length: entries.
  Target buffer;       // The first receive buffer.
};

std::array<std::byte, kConnectDataBytes> encode(const ConnectData& data);
// kUnsupported: another version. kInvalid: too short, or a list that cannot be.
Result<ConnectData> decode_connect_data(std::span<const std::byte> bytes);

}  // namespace isthmus::rdmacm
