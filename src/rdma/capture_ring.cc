#include "rdma/capture_ring.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/assert.h"

namespace isthmus::rdma {
namespace {

enum class RecordKind : std::uint8_t { kPacket = 1, kPad = 2 };

// The first 8 bytes are all a pad record has.
struct RecordHeader {
  std::uint32_t record_bytes;  // This header, the bytes and the padding: a multiple of 8.
  RecordKind kind;
  CaptureDirection direction;
  std::uint8_t channel;
  std::uint8_t reserved;
  std::uint32_t stored_bytes;
  std::uint32_t original_bytes;
  std::uint64_t timestamp_ns;
  wire::IpAddress::Bytes source;
  wire::IpAddress::Bytes destination;
  std::uint16_t source_port;
  std::uint16_t ip_id;
  std::uint32_t local_qpn;
};
constexpr std::size_t kPadHeaderBytes = 8;
constexpr std::size_t kAlignment = 8;
static_assert(sizeof(RecordHeader) == 64);
static_assert(offsetof(RecordHeader, stored_bytes) == kPadHeaderBytes);

constexpr std::size_t padded(std::size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}
constexpr std::size_t kMaxRecordBytes = padded(sizeof(RecordHeader) + kCaptureSnapBytes);
static_assert(2 * kMaxRecordBytes <= kCaptureRingBytes, "a pad and a record must fit");

struct RingMemory {
  CaptureRingHeader* header;
  std::span<std::byte> data;
};

Result<RingMemory> check_ring(std::span<std::byte> memory) {
  if (memory.size() < sizeof(CaptureRingHeader) + 2 * kMaxRecordBytes) {
    return fail(ErrorCode::kInvalid, "a capture ring of %zu bytes is too small", memory.size());
  }
  // SAFETY: shared memory that format() made a header in, aligned as a mapping is; all its bit
  // patterns are values of the header's fields.
  auto* header = reinterpret_cast<CaptureRingHeader*>(memory.data());
  const std::uint64_t data_bytes = header->data_bytes;
  if (header->magic != kCaptureMagic || !std::has_single_bit(data_bytes) ||
      data_bytes != memory.size() - sizeof(CaptureRingHeader)) {
    return fail(ErrorCode::kInvalid, "the memory handed over holds no capture ring");
  }
  return RingMemory{header, memory.subspan(sizeof(CaptureRingHeader))};
}

}  // namespace

void CaptureRing::format(std::span<std::byte> memory) {
  ISTHMUS_ASSERT(memory.size() > sizeof(CaptureRingHeader));
  const std::uint64_t data_bytes = memory.size() - sizeof(CaptureRingHeader);
  ISTHMUS_ASSERT(std::has_single_bit(data_bytes) && data_bytes >= 2 * kMaxRecordBytes);
  // SAFETY: as in check_ring; nobody else has the memory yet.
  auto* header = reinterpret_cast<CaptureRingHeader*>(memory.data());
  header->data_bytes = data_bytes;
  header->magic = kCaptureMagic;
}

Result<std::unique_ptr<CaptureRing>> CaptureRing::open(std::span<std::byte> memory,
                                                       std::shared_ptr<void> keep_alive) {
  const RingMemory ring = ISTHMUS_TRY(check_ring(memory));
  auto made =
      std::unique_ptr<CaptureRing>(new CaptureRing(ring.header, ring.data, std::move(keep_alive)));
  made->head_ = ring.header->head.load(std::memory_order_relaxed);  // Alone: nobody else writes it.
  if (made->head_ % kAlignment != 0) {
    return fail(ErrorCode::kInvalid, "the capture ring was left in the middle of a record");
  }
  return made;
}

bool CaptureRing::wants(std::uint32_t local_qpn) const {
  const std::uint32_t only = header_->only_qpn.load(std::memory_order_relaxed);
  return !stopped() && (only == 0 || only == local_qpn);
}

// Room for a record in one piece, or null. Advances head_ past a pad record, never past the record.
std::byte* CaptureRing::reserve(std::size_t record_bytes) {
  const std::uint64_t used = head_ - header_->tail.load(std::memory_order_acquire);
  const std::size_t position = head_ % data_.size();
  const std::size_t to_end = data_.size() - position;
  const std::size_t pad_bytes = to_end < record_bytes ? to_end : 0;
  // The daemon wrote the tail; a wrong one must not make us write over unread records.
  if (used > data_.size() || data_.size() - used < pad_bytes + record_bytes) return nullptr;
  if (pad_bytes != 0) {
    RecordHeader pad{};
    pad.record_bytes = static_cast<std::uint32_t>(pad_bytes);
    pad.kind = RecordKind::kPad;
    std::memcpy(data_.data() + position, &pad, kPadHeaderBytes);
    head_ += pad_bytes;
  }
  return data_.data() + head_ % data_.size();
}

bool CaptureRing::record(const CaptureMeta& meta,
                         std::initializer_list<std::span<const std::byte>> pieces) {
  std::size_t original = 0;
  for (const auto& piece : pieces) original += piece.size();
  const std::size_t stored = std::min(original, kCaptureSnapBytes);
  const std::size_t record_bytes = padded(sizeof(RecordHeader) + stored);

  std::byte* out = reserve(record_bytes);
  if (out == nullptr) {
    header_->dropped.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  const RecordHeader header{.record_bytes = static_cast<std::uint32_t>(record_bytes),
                            .kind = RecordKind::kPacket,
                            .direction = meta.direction,
                            .channel = static_cast<std::uint8_t>(meta.channel),
                            .reserved = 0,
                            .stored_bytes = static_cast<std::uint32_t>(stored),
                            .original_bytes = static_cast<std::uint32_t>(original),
                            .timestamp_ns = meta.timestamp_ns,
                            .source = meta.source.bytes(),
                            .destination = meta.destination.bytes(),
                            .source_port = meta.source_port,
                            .ip_id = meta.ip_id,
                            .local_qpn = meta.local_qpn};
  std::memcpy(out, &header, sizeof(header));
  out += sizeof(header);
  std::size_t left = stored;
  for (const auto& piece : pieces) {
    const std::size_t bytes = std::min(left, piece.size());
    if (bytes != 0) std::memcpy(out, piece.data(), bytes);
    out += bytes;
    left -= bytes;
  }
  ISTHMUS_ASSERT(left == 0);
  head_ += record_bytes;
  header_->head.store(head_, std::memory_order_release);
  return true;
}

void CaptureRing::record_run(CaptureMeta meta, std::span<const std::byte> bytes,
                             std::size_t segment_bytes) {
  ISTHMUS_ASSERT(segment_bytes != 0);
  while (!bytes.empty()) {
    const std::size_t size = std::min(segment_bytes, bytes.size());
    record(meta, bytes.first(size));
    bytes = bytes.subspan(size);
    ++meta.ip_id;
  }
}

Result<std::unique_ptr<CaptureReader>> CaptureReader::open(std::span<std::byte> memory,
                                                           std::shared_ptr<void> keep_alive) {
  const RingMemory ring = ISTHMUS_TRY(check_ring(memory));
  auto made = std::unique_ptr<CaptureReader>(
      new CaptureReader(ring.header, ring.data, std::move(keep_alive)));
  made->tail_ = ring.header->tail.load(std::memory_order_relaxed);  // Alone: nobody else writes it.
  return made;
}

Result<std::optional<CapturedPacket>> CaptureReader::next() {
  for (;;) {
    const std::uint64_t used = header_->head.load(std::memory_order_acquire) - tail_;
    if (used == 0) return std::nullopt;
    const std::size_t position = tail_ % data_.size();
    const std::size_t available = std::min<std::uint64_t>(used, data_.size() - position);
    if (used > data_.size() || position % kAlignment != 0 || available < kPadHeaderBytes) {
      return fail(ErrorCode::kInvalid, "a capture ring claims %llu unread bytes of %zu",
                  static_cast<unsigned long long>(used), data_.size());
    }
    RecordHeader header{};
    std::memcpy(&header, data_.data() + position, std::min(available, sizeof(header)));
    if (header.record_bytes < kPadHeaderBytes || header.record_bytes > available ||
        header.record_bytes % kAlignment != 0) {
      return fail(ErrorCode::kInvalid, "a capture record claims %u bytes of %zu",
                  header.record_bytes, available);
    }
    CapturedPacket packet;
    const bool is_packet = header.kind == RecordKind::kPacket;
    if (is_packet) {
      if (header.record_bytes < sizeof(header) || header.stored_bytes > kCaptureSnapBytes ||
          header.stored_bytes > header.record_bytes - sizeof(header)) {
        return fail(ErrorCode::kInvalid, "a capture record of %u bytes claims a packet of %u",
                    header.record_bytes, header.stored_bytes);
      }
      packet.meta = {.timestamp_ns = header.timestamp_ns,
                     .direction = header.direction == CaptureDirection::kIncoming
                                      ? CaptureDirection::kIncoming
                                      : CaptureDirection::kOutgoing,
                     .channel = header.channel == 0 ? ChannelKind::kRoce : ChannelKind::kMemory,
                     .source = wire::IpAddress{header.source},
                     .destination = wire::IpAddress{header.destination},
                     .source_port = header.source_port,
                     .ip_id = header.ip_id,
                     .local_qpn = header.local_qpn};
      packet.original_bytes = std::max(header.original_bytes, header.stored_bytes);
      const auto bytes = data_.subspan(position + sizeof(header), header.stored_bytes);
      packet.bytes.assign(bytes.begin(), bytes.end());
    }
    tail_ += header.record_bytes;
    header_->tail.store(tail_, std::memory_order_release);
    if (is_packet) return packet;
  }
}

void CaptureReader::set_only_qpn(std::uint32_t qpn) {
  header_->only_qpn.store(qpn, std::memory_order_relaxed);
}

void CaptureReader::stop() { header_->stopped.store(1, std::memory_order_relaxed); }

}  // namespace isthmus::rdma
