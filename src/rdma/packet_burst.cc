#include "rdma/packet_burst.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "os/clock.h"
#include "os/udp_socket.h"
#include "rdma/capture_ring.h"
#include "rdma/limits.h"
#include "wire/byte_order.h"
#include "wire/icrc.h"
#include "wire/roce_packet.h"

namespace isthmus::rdma {
namespace {

constexpr std::size_t kBufferBytes = 256 * 1024;
constexpr std::size_t kMaxRuns = 64;
constexpr std::size_t kMaxParts = 4096;
constexpr std::size_t kMaxPadBytes = 3;
constexpr std::size_t kMaxPartsPerPacket = kMaxSge + 2;  // Headers; padding and ICRC.
// A piece more costs the kernel about what copying so many bytes costs us.
constexpr std::size_t kBytesToRefer = 1024;

// Of a packet that begins with a BTH: its destination QPN is the low part of the second word.
std::uint32_t destined_function(const void* packet) {
  return function_of(wire::load_be32(static_cast<const std::byte*>(packet) + 4) & 0xff'ffff);
}

}  // namespace

PacketBurst::PacketBurst(PacketPort& port)
    : port_(port),
      buffer_(std::make_unique_for_overwrite<std::byte[]>(kBufferBytes)),
      parts_(std::make_unique_for_overwrite<iovec[]>(kMaxParts)) {
  runs_.reserve(kMaxRuns);
}

std::byte* PacketBurst::begin(std::size_t bytes) {
  const bool full = used_ + bytes + kMaxPadBytes + wire::kIcrcBytes > kBufferBytes ||
                    runs_.size() == kMaxRuns || part_count_ + kMaxPartsPerPacket > kMaxParts;
  if (full) flush();
  ISTHMUS_ASSERT(bytes + kMaxPadBytes + wire::kIcrcBytes <= kBufferBytes);
  return buffer_.get() + used_;
}

bool PacketBurst::refers(std::size_t bytes, std::uint32_t local_qpn) const {
  return bytes >= kBytesToRefer && !(capture_ && capture_->wants(local_qpn));
}

bool PacketBurst::joins_last_run(const Path& path, const std::byte* head, std::size_t total,
                                 std::size_t parts) const {
  if (run_closed_) return false;
  const OutgoingRun& run = runs_.back();
  // A host hands a whole run to the function that its first packet is for.
  if (destined_function(run.parts.front().iov_base) != destined_function(head)) return false;
  return run.destination == path.destination && run.source == path.source &&
         total <= run.segment_bytes && segments_ < port_.max_segments() &&
         run.bytes + total <= os::kMaxRunBytes && run.parts.size() + parts <= os::kMaxRunParts;
}

// To the last run.
void PacketBurst::append(const void* data, std::size_t bytes) {
  if (bytes == 0) return;
  OutgoingRun& run = runs_.back();
  run.bytes += static_cast<std::uint32_t>(bytes);
  if (!run.parts.empty()) {
    iovec& last = parts_[part_count_ - 1];
    if (static_cast<std::byte*>(last.iov_base) + last.iov_len == data) {
      last.iov_len += bytes;
      return;
    }
  }
  // SAFETY: sending only reads it.
  parts_[part_count_++] = {const_cast<void*>(data), bytes};
  run.parts = {run.parts.data(), run.parts.size() + 1};
}

void PacketBurst::commit(const Path& path, std::size_t header_bytes,
                         std::span<const iovec> payload, std::size_t pad_bytes,
                         std::uint32_t local_qpn) {
  std::size_t total = header_bytes + pad_bytes + wire::kIcrcBytes;
  for (const iovec& piece : payload) total += piece.iov_len;
  std::byte* head = buffer_.get() + used_;
  if (joins_last_run(path, head, total, payload.size() + 2)) {
    run_closed_ = total < runs_.back().segment_bytes;
  } else {
    runs_.push_back({.source = path.source,
                     .destination = path.destination,
                     .parts = {parts_.get() + part_count_, 0},
                     .bytes = 0,
                     .segment_bytes = static_cast<std::uint32_t>(total)});
    segments_ = 0;
    run_closed_ = false;
  }

  std::byte* tail = head + header_bytes;
  std::memset(tail, 0, pad_bytes);
  const wire::IcrcFlow flow{path.source, path.destination, kRocePort, kRocePort};
  const auto ip_id = static_cast<std::uint16_t>(segments_);
  std::uint32_t sum =
      wire::icrc_start(flow, {head, header_bytes}, total - wire::kIcrcBytes, ip_id);
  append(head, header_bytes);
  for (const iovec& piece : payload) {
    sum = wire::crc32_update(sum, {static_cast<const std::byte*>(piece.iov_base), piece.iov_len});
    append(piece.iov_base, piece.iov_len);
  }
  if (pad_bytes > 0) sum = wire::crc32_update(sum, {tail, pad_bytes});
  wire::store_le32(tail + pad_bytes, wire::icrc_finish(sum));
  append(tail, pad_bytes + wire::kIcrcBytes);
  used_ += header_bytes + pad_bytes + wire::kIcrcBytes;

  if (capture_ && payload.empty()) [[unlikely]] record(path, total, local_qpn);
  ++segments_;
  ++packets_;
}

// The packet at the buffer's end.
void PacketBurst::record(const Path& path, std::size_t total, std::uint32_t local_qpn) {
  if (!capture_->wants(local_qpn)) return;
  capture_->record({.timestamp_ns = os::now_ns(),
                    .source = path.source,
                    .destination = path.destination,
                    .ip_id = static_cast<std::uint16_t>(segments_),
                    .local_qpn = local_qpn},
                   {buffer_.get() + used_ - total, total});
}

void PacketBurst::flush() {
  if (runs_.empty()) return;
  port_.send(runs_);
  runs_.clear();
  used_ = part_count_ = 0;
  run_closed_ = true;
}

}  // namespace isthmus::rdma
