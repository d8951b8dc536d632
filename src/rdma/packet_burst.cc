#include "rdma/packet_burst.h"

#include "base/assert.h"
#include "os/clock.h"
#include "rdma/capture_ring.h"
#include "wire/byte_order.h"
#include "wire/icrc.h"
#include "wire/roce_packet.h"

namespace isthmus::rdma {
namespace {

constexpr std::size_t kBufferBytes = 256 * 1024;
constexpr std::size_t kMaxRuns = 64;
// A run is one IP packet until the kernel cuts it: 65,535 bytes with its headers.
constexpr std::size_t kMaxRunBytes = 65'000;

}  // namespace

PacketBurst::PacketBurst(PacketPort& port)
    : port_(port), buffer_(std::make_unique<std::byte[]>(kBufferBytes)) {
  runs_.reserve(kMaxRuns);
}

std::byte* PacketBurst::begin(std::size_t bytes) {
  if (used_ + bytes + wire::kIcrcBytes > kBufferBytes || runs_.size() == kMaxRuns) flush();
  ISTHMUS_ASSERT(bytes + wire::kIcrcBytes <= kBufferBytes);
  return buffer_.get() + used_;
}

void PacketBurst::commit(const Path& path, std::size_t bytes, std::uint32_t local_qpn) {
  std::byte* packet = buffer_.get() + used_;
  const std::size_t total = bytes + wire::kIcrcBytes;
  const bool joins = !run_closed_ && runs_.back().destination == path.destination &&
                     runs_.back().source == path.source && total <= runs_.back().segment_bytes &&
                     segments_ < port_.max_segments() &&
                     runs_.back().bytes.size() + total <= kMaxRunBytes;
  if (joins) {
    OutgoingRun& run = runs_.back();
    run.bytes = {run.bytes.data(), run.bytes.size() + total};
    run_closed_ = total < run.segment_bytes;
  } else {
    runs_.push_back({path.source, path.destination, {packet, total},
                     static_cast<std::uint32_t>(total)});
    segments_ = 0;
    run_closed_ = false;
  }
  const wire::IcrcFlow flow{path.source, path.destination, kRocePort, kRocePort};
  wire::store_le32(packet + bytes, wire::icrc(flow, {packet, bytes},
                                              static_cast<std::uint16_t>(segments_)));
  if (capture_ && capture_->wants(local_qpn)) [[unlikely]] {
    capture_->record({.timestamp_ns = os::now_ns(),
                      .source = path.source,
                      .destination = path.destination,
                      .ip_id = static_cast<std::uint16_t>(segments_),
                      .local_qpn = local_qpn},
                     {packet, total});
  }
  ++segments_;
  ++packets_;
  used_ += total;
}

void PacketBurst::flush() {
  if (runs_.empty()) return;
  port_.send(runs_);
  runs_.clear();
  used_ = 0;
  run_closed_ = true;
}

}  // namespace isthmus::rdma
