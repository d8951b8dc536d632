#include "apps/isthmusd_capture.h"

#include <algorithm>

#include "base/log.h"
#include "os/clock.h"
#include "os/process.h"
#include "os/shared_memory.h"

namespace isthmus::apps {
namespace {

// A ring of 4 MiB fills in 4 ms at 1 GB/s; capturing at such rates loses packets and counts them.
constexpr std::uint64_t kLookEveryNs = 10 * os::kNsPerMs;
constexpr int kPacketsPerLook = 4096;  // Of one ring.

// The clocks differ by a constant, except when somebody sets the time.
std::uint64_t wall_time_of(std::uint64_t monotonic_ns) {
  return os::wall_clock_ns() - os::now_ns() + monotonic_ns;
}

}  // namespace

Captures::~Captures() { stop(); }

void Captures::add(std::uint32_t qpn, std::weak_ptr<control::PacketSink> sink) {
  const bool first = sinks_.empty();
  sinks_.push_back({.qpn = qpn, .target = std::move(sink), .batch = {}});
  if (!first) return;
  functions_.for_each([this](const control::Function& function) { on_attached(function); });
  timer_ = loop_.call_at(os::now_ns() + kLookEveryNs, [this] { look(); });
}

void Captures::on_attached(const control::Function& function) {
  if (!active()) return;
  const auto opened = open_ring(function);
  if (!opened) {
    ISTHMUS_LOG(kWarning, "function %u is not captured: %s", function.index,
                opened.error().message.c_str());
  }
}

Result<void> Captures::open_ring(const control::Function& function) {
  const os::Fd file =
      ISTHMUS_TRY(os::create_shared_memory("isthmus-capture", rdma::kCaptureFileBytes));
  std::shared_ptr<os::Mapping> mapping =
      ISTHMUS_TRY(os::Mapping::create(file, rdma::kCaptureFileBytes));
  rdma::CaptureRing::format(mapping->bytes());
  auto reader = ISTHMUS_TRY(rdma::CaptureReader::open(mapping->bytes(), mapping));
  ISTHMUS_TRY_VOID(functions_.start_capture(function.index, file));
  rings_[function.index] = Ring{std::move(reader), function.owner.process_id};
  return {};
}

void Captures::on_detached(const control::Function& function) {
  const auto found = rings_.find(function.index);
  if (found == rings_.end()) return;
  empty(found->second);
  dropped_by_gone_rings_ += found->second.reader->dropped();
  rings_.erase(found);
}

void Captures::empty(Ring& ring) {
  for (int i = 0; i < kPacketsPerLook; ++i) {
    auto next = ring.reader->next();
    if (!next) {
      ISTHMUS_LOG(kWarning, "process %d: %s", ring.process_id, next.error().message.c_str());
      return;
    }
    if (!*next) return;
    rdma::CapturedPacket& packet = **next;
    deliver({.timestamp_ns = wall_time_of(packet.meta.timestamp_ns),
             .incoming = packet.meta.direction == rdma::CaptureDirection::kIncoming,
             .memory_channel = packet.meta.channel == rdma::ChannelKind::kMemory,
             .source = packet.meta.source,
             .destination = packet.meta.destination,
             .source_port = packet.meta.source_port,
             .ip_id = packet.meta.ip_id,
             .original_bytes = packet.original_bytes,
             .payload = std::move(packet.bytes),
             .process_id = ring.process_id,
             .local_qpn = packet.meta.local_qpn});
  }
}

void Captures::note(const control::CmDatagram& datagram, bool incoming) {
  if (!active()) return;
  deliver({.timestamp_ns = os::wall_clock_ns(),
           .incoming = incoming,
           .source = datagram.source,
           .destination = datagram.destination,
           .source_port = incoming ? datagram.source_port : rdma::kRocePort,
           .original_bytes = static_cast<std::uint32_t>(datagram.payload.size()),
           .payload = {datagram.payload.begin(), datagram.payload.end()},
           .process_id = os::process_id(),
           .local_qpn = 1});
}

void Captures::deliver(const control::PacketReport& packet) {
  for (Sink& sink : sinks_) {
    if (sink.qpn == 0 || sink.qpn == packet.local_qpn) sink.batch.packets.push_back(packet);
  }
}

void Captures::look() {
  std::uint64_t dropped = dropped_by_gone_rings_;
  for (auto& [function, ring] : rings_) {
    empty(ring);
    dropped += ring.reader->dropped();
  }
  for (Sink& sink : sinks_) {
    const auto target = sink.target.lock();
    if (!target || sink.batch.packets.empty()) continue;
    sink.batch.dropped = dropped;
    std::ranges::stable_sort(sink.batch.packets, {}, &control::PacketReport::timestamp_ns);
    target->push(std::exchange(sink.batch, {}));
  }
  std::erase_if(sinks_, [](const Sink& sink) { return sink.target.expired(); });
  if (!active()) return stop();
  timer_ = loop_.call_at(os::now_ns() + kLookEveryNs, [this] { look(); });
}

void Captures::stop() {
  loop_.cancel(timer_);
  for (auto& [function, ring] : rings_) ring.reader->stop();
  rings_.clear();
  dropped_by_gone_rings_ = 0;
}

}  // namespace isthmus::apps
