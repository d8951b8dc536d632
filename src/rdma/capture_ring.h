// The capture ring: copies of a function's packets, from its engine to the daemon.
//
// `isthmus capture` asks the daemon, the daemon makes a ring in a memory file and hands it to the
// process with the attach event `capture`; from then on the engine records each packet of either
// channel here, and the daemon empties the ring into the streams of whoever captures. What the
// memory channel moves has no packets: the engine records those the RoCE channel would have sent
// (capture_message.h).
//
// A full ring loses the new packet and counts it: capturing never slows the data path by more than
// one copy, and the engine makes no system call for it. The daemon looks at the ring from a timer.
//
//     header | records ...        record: RecordHeader | bytes | 0..7 bytes of padding
//
// head and tail count bytes since the beginning and are never reduced; a position in the data is
// one of them modulo data_bytes. A record lies in one piece: where the end of the data is too near,
// a record of kind kPad fills it up.
//
// Threading: one producer (the engine, under its lock) and one consumer (the daemon's loop).
// Input: CaptureReader reads what another process may have scribbled on, on a copy, checked.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "rdma/window.h"
#include "wire/ip.h"

namespace isthmus::rdma {

constexpr std::uint64_t kCaptureMagic = 0x31'30'50'41'43'49ull;  // "ICAP01"
constexpr std::size_t kCaptureRingBytes = 4u << 20;              // 1000 packets of the largest MTU.
constexpr std::size_t kCaptureSnapBytes = 4608;  // Of one packet; the largest RoCE packet has 4144.

enum class CaptureDirection : std::uint8_t { kOutgoing = 0, kIncoming = 1 };

// What is known of a packet besides its bytes.
struct CaptureMeta {
  std::uint64_t timestamp_ns = 0;  // Monotonic clock.
  CaptureDirection direction = CaptureDirection::kOutgoing;
  ChannelKind channel = ChannelKind::kRoce;
  wire::IpAddress source;
  wire::IpAddress destination;
  std::uint16_t source_port = 4791;
  std::uint16_t ip_id = 0;      // IPv4: part of what the ICRC covers.
  std::uint32_t local_qpn = 0;  // The queue pair of this function it belongs to; 0: unknown.
};

// A packet taken out of a ring. `bytes` is the UDP payload, BTH to ICRC.
struct CapturedPacket {
  CaptureMeta meta;
  std::uint32_t original_bytes = 0;  // Larger than bytes.size() when it was cut.
  std::vector<std::byte> bytes;
};

struct CaptureRingHeader {
  std::uint64_t magic;
  std::uint64_t data_bytes;  // A power of two.
  // Bytes recorded. Release; partner: CaptureReader::next, which acquires.
  alignas(64) std::atomic<std::uint64_t> head;
  // Bytes taken out. Release; partner: CaptureRing::record, which acquires: what was read before
  // may be overwritten.
  alignas(64) std::atomic<std::uint64_t> tail;
  // Written by the daemon, read by the engine; they order nothing.
  alignas(64) std::atomic<std::uint32_t> stopped;  // 1: nobody reads any more, unmap the ring.
  std::atomic<std::uint32_t> only_qpn;             // 0: packets of all queue pairs.
  // Written by the engine: packets that found the ring full.
  alignas(64) std::atomic<std::uint64_t> dropped;
};

// The producer's side.
class CaptureRing {
 public:
  // Makes an empty ring in zeroed shared memory. Its size is that of the header and a power of two.
  static void format(std::span<std::byte> memory);
  // A view of a ring made by format(). kInvalid: something else is in there. The memory lives as
  // long as `keep_alive` does.
  static Result<std::unique_ptr<CaptureRing>> open(std::span<std::byte> memory,
                                                   std::shared_ptr<void> keep_alive);

  // Whether a packet of this queue pair is wanted: ask before gathering what record() needs.
  bool wants(std::uint32_t local_qpn) const;
  bool stopped() const { return header_->stopped.load(std::memory_order_relaxed) != 0; }

  // One packet, its bytes in pieces. False: no room, counted.
  bool record(const CaptureMeta& meta, std::initializer_list<std::span<const std::byte>> pieces);
  bool record(const CaptureMeta& meta, std::span<const std::byte> packet) {
    return record(meta, {packet});
  }
  // The packets of one GSO run: all of segment_bytes, the last may be shorter; the kernel numbers
  // their IP IDs from 0.
  void record_run(CaptureMeta meta, std::span<const std::byte> bytes, std::size_t segment_bytes);

 private:
  CaptureRing(CaptureRingHeader* header, std::span<std::byte> data, std::shared_ptr<void> keep)
      : header_(header), data_(data), keep_alive_(std::move(keep)) {}
  std::byte* reserve(std::size_t record_bytes);

  CaptureRingHeader* header_;
  std::span<std::byte> data_;
  std::shared_ptr<void> keep_alive_;
  std::uint64_t head_ = 0;  // Ours; the shared one is only its announcement.
};

// The consumer's side.
class CaptureReader {
 public:
  static Result<std::unique_ptr<CaptureReader>> open(std::span<std::byte> memory,
                                                     std::shared_ptr<void> keep_alive);

  // The oldest packet; nothing when the ring is empty. An error when the producer wrote nonsense:
  // nothing more can be read from this ring.
  Result<std::optional<CapturedPacket>> next();
  std::uint64_t dropped() const { return header_->dropped.load(std::memory_order_relaxed); }

  // Only packets of this queue pair from now on; 0: of all.
  void set_only_qpn(std::uint32_t qpn);
  // Tells the producer to let go of the ring.
  void stop();

 private:
  CaptureReader(CaptureRingHeader* header, std::span<const std::byte> data,
                std::shared_ptr<void> keep)
      : header_(header), data_(data), keep_alive_(std::move(keep)) {}

  CaptureRingHeader* header_;
  std::span<const std::byte> data_;
  std::shared_ptr<void> keep_alive_;
  std::uint64_t tail_ = 0;  // Ours; the shared one is only its announcement.
};

// The size of the memory file for kCaptureRingBytes of records.
constexpr std::size_t kCaptureFileBytes = sizeof(CaptureRingHeader) + kCaptureRingBytes;

}  // namespace isthmus::rdma
