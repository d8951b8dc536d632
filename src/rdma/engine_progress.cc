// What moves an engine: packets, neighbours, deadlines, and queue pairs with something to send.
//
// Cost of an empty poll: one load of the activity summary, and one system call if any queue pair
// can get packets from the port. While a program answers every message at once, the
// acknowledgement that a poll owes waits for that answer, to leave in one system call with it.
#include <utility>

#include "rdma/completion_queue.h"
#include "rdma/engine_state.h"
#include "rdma/queue_pair.h"
#include "rdma/shared_receive_queue.h"

namespace isthmus::rdma {
namespace {

// How often a poll looks at what nobody is expected to use: the port without port users, the clock.
constexpr std::uint32_t kSeldom = 32;
// A program that has answered this often in a row, each time within so many polls, will again.
constexpr std::uint32_t kPromptAnswersToWait = 32;
constexpr std::uint32_t kPollsOfPromptAnswer = 3;
constexpr std::uint32_t kBatchesPerRound = 4;

}  // namespace

EngineState::EngineState(EngineOptions engine_options, PacketPort& packet_port,
                         EngineListener& engine_listener)
    : options(std::move(engine_options)),
      port(packet_port),
      listener(engine_listener),
      window(options.window),
      keys(window->keys, options.random),
      burst(packet_port) {
  // A peer may remember the numbers of the function's last owner for some seconds: Linux's
  // connection manager takes a request that names one of them for stale.
  const std::uint64_t draw = options.random();
  next_index = static_cast<std::uint32_t>(draw % kMaxQueuePairs);
  generations.fill(static_cast<std::uint8_t>(draw >> 56));
}

QueuePair* EngineState::find(std::uint32_t qpn) {
  QueuePair* qp = queue_pairs[index_of(qpn)];
  return qp && qp->qpn() == qpn ? qp : nullptr;
}

void EngineState::schedule(QueuePair& qp) {
  if (qp.scheduled) return;
  qp.scheduled = true;
  active.push_back(&qp);
}

void EngineState::forget(QueuePair& qp) {
  std::erase(active, &qp);
  std::replace(running.begin(), running.end(), &qp, static_cast<QueuePair*>(nullptr));
  queue_pairs[index_of(qp.qpn())] = nullptr;
}

void EngineState::note_activity(const QueuePair& qp) {
  const std::uint32_t index = index_of(qp.qpn());
  window->header.activity[index / 64].fetch_or(std::uint64_t{1} << (index % 64));
  window->header.activity_summary.fetch_or(std::uint64_t{1} << (index / 64));
}

std::byte* EngineState::null_memory() {
  if (!null_scratch) null_scratch = std::make_unique<std::byte[]>(kNullScratchBytes);
  return null_scratch.get();
}

bool EngineState::receive_packets(std::uint32_t most_batches) {
  bool any = false;
  for (std::uint32_t i = 0; i < most_batches; ++i) {
    const std::span<const IncomingDatagram> batch = port.receive();
    if (batch.empty()) break;
    any = true;
    for (const IncomingDatagram& datagram : batch) on_datagram(datagram);
  }
  if (raw_packets) any |= raw_packets->receive();
  return any;
}

void EngineState::on_datagram(const IncomingDatagram& datagram) {
  const wire::IcrcFlow flow{datagram.source, datagram.destination, datagram.source_port,
                            kRocePort};
  const auto packet = wire::decode_roce(datagram.payload);
  const wire::IcrcVerdict verdict = packet ? icrc.verify(flow, datagram.payload)
                                           : wire::IcrcVerdict{};
  if (!verdict.accepted()) {
    count(window->header.counters.drops);
    return;
  }
  count(window->header.counters.packets_received);
  if (capture) [[unlikely]] capture_datagram(datagram, *packet, verdict.ip_id);
  if (packet->bth.dest_qpn == kMulticastQpn) {
    on_multicast(datagram, *packet);
    return;
  }
  QueuePair* qp = find(packet->bth.dest_qpn);
  if (qp == nullptr) {
    count(window->header.counters.drops);
    return;
  }
  qp->on_packet(datagram, *packet, now());
}

void EngineState::capture_datagram(const IncomingDatagram& datagram,
                                   const wire::RocePacket& packet, std::uint16_t ip_id) {
  if (!capture->wants(packet.bth.dest_qpn)) return;
  capture->record({.timestamp_ns = now(),
                   .direction = CaptureDirection::kIncoming,
                   .source = datagram.source,
                   .destination = datagram.destination,
                   .source_port = datagram.source_port,
                   .ip_id = ip_id,
                   .local_qpn = packet.bth.dest_qpn},
                  datagram.payload);
}

void EngineState::on_multicast(const IncomingDatagram& datagram, const wire::RocePacket& packet) {
  const auto found = multicast.find(datagram.destination.bytes());
  if (found == multicast.end()) return;
  for (QueuePair* qp : found->second) {
    // A sender does not hear itself.
    if (packet.deth.src_qpn != qp->qpn()) qp->on_packet(datagram, packet, now());
  }
}

bool EngineState::serve_neighbours() {
  WindowHeader& header = window->header;
  // Relaxed look first: a poll is mostly in vain. The exchange pairs with notify().
  if (header.activity_summary.load(std::memory_order_relaxed) == 0) return false;
  std::uint64_t words = header.activity_summary.exchange(0);
  const std::uint64_t time = now();
  for (; words != 0; words &= words - 1) {
    const auto word = static_cast<std::uint32_t>(__builtin_ctzll(words));
    std::uint64_t bits = header.activity[word].exchange(0);
    for (; bits != 0; bits &= bits - 1) {
      const std::uint32_t index = word * 64 + static_cast<std::uint32_t>(__builtin_ctzll(bits));
      if (QueuePair* qp = queue_pairs[index]) qp->on_activity(time);
    }
  }
  return true;
}

bool EngineState::run_deadlines() {
  if (deadlines.empty()) return false;
  const std::uint64_t time = now();
  bool any = false;
  while (!deadlines.empty() && deadlines.top().at_ns <= time) {
    QueuePair* qp = find(deadlines.top().qpn);
    deadlines.pop();
    if (qp) qp->on_deadline(time);
    any = true;
  }
  return any;
}

bool EngineState::run_active() {
  if (active.empty()) return false;
  const std::uint64_t time = now();
  std::swap(active, running);
  for (std::size_t i = 0; i < running.size(); ++i) {
    QueuePair* qp = running[i];
    if (qp == nullptr) continue;
    qp->scheduled = false;
    if (qp->transmit(time)) schedule(*qp);
  }
  running.clear();
  return true;
}

int Engine::post_send(QueuePair& qp, ibv_send_wr* wr, ibv_send_wr** bad) {
  const int error = qp.post_send(wr, bad);
  if (state_->polls_since_post > 0) ++state_->prompt_answers;
  state_->polls_since_post = 0;
  state_->run_active();
  state_->burst.flush();
  return error;
}

int Engine::post_recv(QueuePair& qp, ibv_recv_wr* wr, ibv_recv_wr** bad) {
  return qp.post_recv(wr, bad);
}

int Engine::post_srq_recv(SharedReceiveQueue& srq, ibv_recv_wr* wr, ibv_recv_wr** bad) {
  for (; wr; wr = wr->next) {
    if (const int error = srq.queue.post(*wr); error != 0) {
      *bad = wr;
      return error;
    }
  }
  if (srq.in_use == 0) return 0;
  // Neighbours' messages may have waited for this.
  for (QueuePair* qp : state_->queue_pairs) {
    if (qp && qp->spec().srq == &srq && qp->neighbour()) state_->note_activity(*qp);
  }
  return 0;
}

int Engine::poll_cq(CompletionQueue& cq, int count, ibv_wc* wc, std::uint64_t* timestamps_ns) {
  if (cq.empty()) {
    EngineState& state = *state_;
    const bool seldom = ++state.idle_polls % kSeldom == 0;
    if (state.run_active()) state.burst.flush();
    state.serve_neighbours();
    // One batch: to find out that there is no second one costs 0.4 µs, and a program that polls
    // comes again.
    if (state.port_users > 0 || seldom) state.receive_packets(1);
    if (seldom) state.run_deadlines();
    const bool may_wait = !cq.empty() && state.prompt_answers >= kPromptAnswersToWait;
    if (!may_wait && state.run_active()) state.burst.flush();
  }
  int polled = 0;
  for (; polled < count && !cq.empty(); ++polled, cq.pop()) {
    wc[polled] = cq.front().wc;
    if (timestamps_ns) timestamps_ns[polled] = cq.front().timestamp_ns;
  }
  if (polled > 0 && ++state_->polls_since_post > kPollsOfPromptAnswer) state_->prompt_answers = 0;
  return polled;
}

void Engine::request_notification(CompletionQueue& cq, bool solicited_only) {
  cq.arm(solicited_only);
}

bool Engine::progress() {
  EngineState& state = *state_;
  bool moved = state.run_active();
  state.burst.flush();
  moved |= state.serve_neighbours();
  moved |= state.receive_packets(kBatchesPerRound);
  moved |= state.run_deadlines();
  moved |= state.run_active();
  state.burst.flush();
  if (state.capture && state.capture->stopped()) set_capture(nullptr);
  return moved;
}

std::uint64_t Engine::next_deadline_ns() const {
  return state_->deadlines.empty() ? UINT64_MAX : state_->deadlines.top().at_ns;
}

bool Engine::prepare_to_sleep() {
  WindowHeader& header = state_->window->header;
  header.sleeping = 1;
  // seq_cst: the store above comes before this load. Partner: notify().
  return header.activity_summary.load() == 0 && state_->active.empty();
}

void Engine::end_sleep() { state_->window->header.sleeping = 0; }

}  // namespace isthmus::rdma
