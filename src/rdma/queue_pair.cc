#include "rdma/queue_pair.h"

#include <bit>

#include "base/assert.h"
#include "rdma/completion_queue.h"
#include "rdma/engine_state.h"
#include "rdma/memory_region.h"
#include "rdma/peer_window.h"
#include "rdma/shared_receive_queue.h"

namespace isthmus::rdma {
namespace {

ibv_wc_opcode completion_opcode(ibv_wr_opcode opcode) {
  switch (opcode) {
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
      return IBV_WC_RDMA_WRITE;
    case IBV_WR_RDMA_READ:
      return IBV_WC_RDMA_READ;
    case IBV_WR_ATOMIC_CMP_AND_SWP:
      return IBV_WC_COMP_SWAP;
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
      return IBV_WC_FETCH_ADD;
    case IBV_WR_ATOMIC_WRITE:
      return IBV_WC_ATOMIC_WRITE;
    case IBV_WR_BIND_MW:
      return IBV_WC_BIND_MW;
    case IBV_WR_LOCAL_INV:
      return IBV_WC_LOCAL_INV;
    default:
      return IBV_WC_SEND;
  }
}

}  // namespace

QueuePair::QueuePair(EngineState& engine, const QueuePairSpec& spec, std::uint32_t qpn)
    : send_queue(spec.cap.max_send_wr, spec.cap.max_send_sge, spec.cap.max_inline_data),
      requester(*this),
      responder(*this),
      memory(*this),
      engine_(engine),
      spec_(spec),
      qpn_(qpn),
      pd_number_(spec.pd ? spec.pd->number() : 0),
      slot_(&engine.window->queue_pairs[index_of(qpn)]),
      receive_queue_(spec.srq ? 0 : spec.cap.max_recv_wr, spec.srq ? 0 : spec.cap.max_recv_sge) {
  if (spec_.pd) ++spec_.pd->in_use;
  if (spec_.send_cq) ++spec_.send_cq->in_use;
  if (spec_.recv_cq) ++spec_.recv_cq->in_use;
  if (spec_.srq) ++spec_.srq->in_use;
  if (spec_.xrcd) ++spec_.xrcd->in_use;
  engine_.queue_pairs[index_of(qpn_)] = this;
  ++engine_.window->header.queue_pair_count;
  slot_->type = static_cast<std::uint32_t>(spec_.type);
  slot_->pd = pd_number_;
  for (auto* counter : {&slot_->counters.messages_sent, &slot_->counters.messages_received,
                        &slot_->counters.bytes_sent, &slot_->counters.bytes_received,
                        &slot_->counters.packets_sent, &slot_->counters.packets_received,
                        &slot_->counters.retries, &slot_->counters.drops}) {
    counter->store(0, std::memory_order_relaxed);
  }
  publish();
  slot_->qpn = qpn_;  // Last: what it names is there. Partner: neighbours, the daemon.
}

QueuePair::~QueuePair() {
  ISTHMUS_ASSERT(in_use == 0);
  send_owed_answers();
  slot_->qpn = 0;
  reset();
  engine_.forget(*this);
  if (is_port_user_) --engine_.port_users;
  if (spec_.pd) --spec_.pd->in_use;
  if (spec_.send_cq) --spec_.send_cq->in_use;
  if (spec_.recv_cq) --spec_.recv_cq->in_use;
  if (spec_.srq) --spec_.srq->in_use;
  if (spec_.xrcd) --spec_.xrcd->in_use;
  --engine_.window->header.queue_pair_count;
}

void QueuePair::purge_completions() {
  if (spec_.send_cq) spec_.send_cq->purge(qpn_);
  if (spec_.recv_cq) spec_.recv_cq->purge(qpn_);
}

int QueuePair::check_send(const ibv_send_wr& wr) const {
  if (spec_.type == IBV_QPT_XRC_RECV) return EINVAL;
  if (is_raw_packet()) {
    return wr.opcode == IBV_WR_SEND && !(wr.send_flags & IBV_SEND_IP_CSUM) ? 0 : EINVAL;
  }
  switch (wr.opcode) {
    case IBV_WR_SEND:
    case IBV_WR_SEND_WITH_IMM:
      if (is_datagram() && wr.wr.ud.ah == nullptr) return EINVAL;
      return 0;
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
      return is_datagram() ? EINVAL : 0;
    case IBV_WR_BIND_MW:
      return is_datagram() || wr.bind_mw.mw == nullptr ? EINVAL : 0;
    case IBV_WR_LOCAL_INV:
      return is_datagram() ? EINVAL : 0;
    case IBV_WR_RDMA_READ:
    case IBV_WR_ATOMIC_CMP_AND_SWP:
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
      if (wr.send_flags & IBV_SEND_INLINE) return EINVAL;
      return is_reliable() ? 0 : EINVAL;
    case IBV_WR_SEND_WITH_INV:
    case IBV_WR_ATOMIC_WRITE:
      return is_reliable() ? 0 : EINVAL;
    default:
      return EINVAL;
  }
}

int QueuePair::post_send(ibv_send_wr* wr, ibv_send_wr** bad) {
  int error = 0;
  const bool wrong_state =
      state_ == IBV_QPS_RESET || state_ == IBV_QPS_INIT || state_ == IBV_QPS_RTR;
  for (; wr; wr = wr->next) {
    error = wrong_state ? EINVAL : check_send(*wr);
    if (error == 0) error = send_queue.post(*wr, is_datagram());
    if (error != 0) {
      *bad = wr;
      break;
    }
  }
  if (state_ == IBV_QPS_ERR || state_ == IBV_QPS_SQE) {
    flush_sends();
  } else {
    engine_.schedule(*this);
  }
  return error;
}

int QueuePair::post_recv(ibv_recv_wr* wr, ibv_recv_wr** bad) {
  for (; wr; wr = wr->next) {
    int error = spec_.srq || state_ == IBV_QPS_RESET ? EINVAL : 0;
    if (spec_.type == IBV_QPT_XRC_SEND || spec_.type == IBV_QPT_XRC_RECV) error = EINVAL;
    if (error == 0) error = receive_queue_.post(*wr);
    if (error != 0) {
      *bad = wr;
      return error;
    }
  }
  if (state_ == IBV_QPS_ERR) flush_receives();
  // A neighbour's message may have waited for this.
  if (neighbour_) engine_.note_activity(*this);
  return 0;
}

bool QueuePair::transmit(std::uint64_t now) {
  bool more = false;
  settle();
  // Requests first: a short acknowledgement can then ride in the same run, as its last segment.
  if (sends()) {
    if (is_datagram()) {
      more |= requester.transmit_datagrams(engine_.burst, now);
    } else if (is_raw_packet()) {
      more |= engine_.raw_packets->transmit(*this);
    } else if (channel_ == ChannelKind::kMemory) {
      more |= memory.transmit(now);
    } else {
      more |= requester.transmit(engine_.burst, now);
    }
    settle();
  }
  if (receives()) more |= responder.transmit(engine_.burst);
  return more;
}

// What waits for the send queue to be quiet: a change of channel, the drained event.
void QueuePair::settle() {
  if (!requester.idle() || !memory.idle()) return;
  if (channel_ != wanted_channel_) {
    const std::uint64_t next =
        std::max(send_queue.head(), channel_ == ChannelKind::kMemory ? memory.next_entry()
                                                                     : requester.next_entry());
    arm_deadline(UINT64_MAX);
    channel_ = wanted_channel_;
    requester.skip_to(next);
    memory.skip_to(next);
    slot_->channel = static_cast<std::uint32_t>(channel_);
    engine_.schedule(*this);
  }
  if (drain_event_wanted_ && state_ == IBV_QPS_SQD) {
    drain_event_wanted_ = false;
    engine_.listener.on_async_event(IBV_EVENT_SQ_DRAINED, this, nullptr, nullptr);
  }
}

void QueuePair::want_channel(ChannelKind kind) {
  if (spec_.type != IBV_QPT_RC || (kind == ChannelKind::kMemory && !neighbour_)) return;
  wanted_channel_ = kind;
  engine_.schedule(*this);
}

void QueuePair::on_packet(const IncomingDatagram& datagram, const wire::RocePacket& packet,
                          std::uint64_t now) {
  const wire::OpcodeInfo& info = wire::info(packet.bth.opcode);
  const wire::Service expected = spec_.type == IBV_QPT_RC   ? wire::Service::kRc
                                 : spec_.type == IBV_QPT_UC ? wire::Service::kUc
                                 : spec_.type == IBV_QPT_UD ? wire::Service::kUd
                                                            : wire::Service::kXrc;
  // A connection's packets come from its peer and no other. 0x7fff and 0xffff are the members of
  // the default partition.
  const bool from_peer = is_datagram() || (datagram.source == path_.destination &&
                                           datagram.destination == path_.source);
  if (is_raw_packet() || info.service != expected || !receives() || !from_peer ||
      (packet.bth.pkey & 0x7fff) != 0x7fff) {
    count(slot_->counters.drops);
    return;
  }
  count(slot_->counters.packets_received);
  if (!info.request) {
    requester.on_response(packet, now);
    return;
  }
  if (spec_.type == IBV_QPT_XRC_SEND) return;
  note_communication();
  if (is_datagram()) {
    responder.on_datagram(datagram, packet);
  } else if (spec_.type == IBV_QPT_UC) {
    responder.on_unreliable_request(packet);
  } else {
    responder.on_request(packet, now);
  }
}

void QueuePair::on_frame(std::span<const std::byte> frame) {
  Receive receive;
  if (!receives() || !take_receive(receive)) {
    count(slot_->counters.drops);
    return;
  }
  ibv_wc wc{.status = IBV_WC_SUCCESS, .opcode = IBV_WC_RECV};
  wc.byte_len = static_cast<std::uint32_t>(frame.size());
  if (frame.size() > receive.bytes) {
    wc.status = IBV_WC_LOC_LEN_ERR;
  } else if (!scatter(engine_.keys, pd_number_, receive.list(), 0, frame)) {
    wc.status = IBV_WC_LOC_PROT_ERR;
  }
  count_received(1, frame.size());
  complete_receive(receive, wc, false);
  if (wc.status != IBV_WC_SUCCESS) enter_error(IBV_EVENT_QP_FATAL);
}

void QueuePair::note_communication() {
  if (communicated_) return;
  communicated_ = true;
  if (state_ == IBV_QPS_RTR && !is_datagram()) {
    engine_.listener.on_async_event(IBV_EVENT_COMM_EST, this, nullptr, nullptr);
  }
}

void QueuePair::on_activity(std::uint64_t now) {
  if (!neighbour_) return;
  memory.serve(now);
  memory.retire(now);
  if (send_queue.head() != send_queue.tail()) engine_.schedule(*this);
}

void QueuePair::arm_deadline(std::uint64_t at_ns) {
  deadline_ns_ = at_ns;
  if (at_ns < listed_deadline_ns_) {
    listed_deadline_ns_ = at_ns;
    engine_.deadlines.push({at_ns, qpn_});
  }
}

void QueuePair::on_deadline(std::uint64_t now) {
  listed_deadline_ns_ = UINT64_MAX;
  if (now < deadline_ns_) {
    if (deadline_ns_ != UINT64_MAX) arm_deadline(deadline_ns_);
    return;
  }
  deadline_ns_ = UINT64_MAX;
  if (channel_ == ChannelKind::kMemory) {
    memory.on_deadline(now);
  } else {
    requester.on_deadline(now);
  }
}

SharedReceiveQueue* QueuePair::find_srq(std::uint32_t srq_number) const {
  if (spec_.type != IBV_QPT_XRC_RECV) return spec_.srq;
  const auto found = engine_.srqs.find(srq_number);
  const bool usable = found != engine_.srqs.end() && found->second->spec().xrcd == spec_.xrcd;
  return usable ? found->second : nullptr;
}

bool QueuePair::can_receive() const {
  return spec_.srq ? !spec_.srq->queue.empty() : !receive_queue_.empty();
}

bool QueuePair::take_receive(Receive& receive, std::uint32_t srq_number) {
  if (spec_.type != IBV_QPT_XRC_RECV && !spec_.srq) return receive_queue_.take(receive);
  SharedReceiveQueue* srq = find_srq(srq_number);
  return srq != nullptr && srq->take(receive);
}

void QueuePair::use_domain_of(std::uint32_t srq_number) {
  const SharedReceiveQueue* srq = find_srq(srq_number);
  pd_number_ = srq ? srq->spec().pd->number() : 0;
}

void QueuePair::complete_receive(const Receive& receive, ibv_wc wc, bool solicited,
                                 std::uint32_t srq_number) {
  CompletionQueue* cq = spec_.recv_cq;
  if (spec_.type == IBV_QPT_XRC_RECV) {
    const SharedReceiveQueue* srq = find_srq(srq_number);
    cq = srq ? srq->spec().cq : nullptr;
  }
  if (cq == nullptr) return;
  wc.wr_id = receive.wr_id;
  wc.qp_num = qpn_;
  cq->push({wc, engine_.now(), srq_number}, solicited);
}

void QueuePair::retire_sends() {
  while (!send_queue.empty() && send_queue.at(send_queue.head()).done) {
    SendEntry& entry = send_queue.at(send_queue.head());
    const bool failed = entry.status != IBV_WC_SUCCESS;
    if (failed || spec_.signal_all || (entry.flags & IBV_SEND_SIGNALED)) {
      ibv_wc wc{};
      wc.wr_id = entry.wr_id;
      wc.status = entry.status;
      wc.opcode = completion_opcode(entry.opcode);
      wc.byte_len = entry.length;
      wc.qp_num = qpn_;
      spec_.send_cq->push({wc, engine_.now(), 0}, false);
    }
    send_queue.pop();
    if (failed && entry.status != IBV_WC_WR_FLUSH_ERR) {
      // An unreliable queue pair can still receive.
      if (is_reliable()) {
        enter_error();
      } else {
        state_ = IBV_QPS_SQE;
        publish();
        flush_sends();
      }
      return;
    }
  }
}

// The peer would wait in vain for the acknowledgement of what we have executed. The last one goes
// twice: were it lost, the peer would ask again, and nobody would be left to answer.
void QueuePair::send_owed_answers() {
  if (!receives()) return;
  while (responder.has_answers() || responder.acknowledge_again()) {
    const bool more = responder.transmit(engine_.burst);
    engine_.burst.flush();
    if (more) return;
  }
}

void QueuePair::flush_sends() {
  memory.cancel();
  for (std::uint64_t n = send_queue.head(); n != send_queue.tail(); ++n) {
    SendEntry& entry = send_queue.at(n);
    if (entry.done) continue;
    entry.done = true;
    entry.status = IBV_WC_WR_FLUSH_ERR;
  }
  retire_sends();
  requester.reset();
}

void QueuePair::flush_receives() {
  const ibv_wc flushed{.status = IBV_WC_WR_FLUSH_ERR, .opcode = IBV_WC_RECV};
  Receive receive;
  if (responder.take_unfinished(receive)) complete_receive(receive, flushed, true);
  if (spec_.srq) return;
  while (receive_queue_.take(receive)) complete_receive(receive, flushed, true);
}

void QueuePair::flush() {
  arm_deadline(UINT64_MAX);
  flush_sends();
  flush_receives();
  responder.drop_message();
}

void QueuePair::enter_error() {
  if (state_ == IBV_QPS_ERR || state_ == IBV_QPS_RESET) return;
  state_ = IBV_QPS_ERR;
  publish();
  flush();
  if (spec_.srq) {
    engine_.listener.on_async_event(IBV_EVENT_QP_LAST_WQE_REACHED, this, nullptr, nullptr);
  }
}

void QueuePair::enter_error(ibv_event_type event) {
  if (state_ == IBV_QPS_ERR || state_ == IBV_QPS_RESET) return;
  enter_error();
  engine_.listener.on_async_event(event, this, nullptr, nullptr);
}

ibv_wc_status QueuePair::execute_local(SendEntry& entry) {
  KeyTable& keys = engine_.keys;
  if (entry.opcode == IBV_WR_LOCAL_INV) {
    const KeySlot* slot = keys.find(entry.immediate);
    const bool usable = slot && (slot->flags & kKeyIsWindowType2) && slot->pd == pd_number_ &&
                        (slot->bound_qpn == 0 || slot->bound_qpn == qpn_);
    if (!usable) return IBV_WC_MW_BIND_ERR;
    keys.unbind(entry.immediate);
    return IBV_WC_SUCCESS;
  }
  // The lowest eight bits are the program's: it may still know the window by an earlier key.
  const std::uint32_t window_key = keys.current(entry.bind.window_key);
  constexpr unsigned kProgramBits = 8;
  const std::uint32_t changed = window_key ^ entry.bind.window_key;
  if ((changed | (window_key ^ entry.rkey)) >> kProgramBits != 0) return IBV_WC_MW_BIND_ERR;
  const KeySlot* window = keys.find(window_key);
  if (window == nullptr || !(window->flags & kKeyIsWindow) || window->pd != pd_number_) {
    return IBV_WC_MW_BIND_ERR;
  }
  const bool type2 = window->flags & kKeyIsWindowType2;
  if (type2 && window->region_key != 0) return IBV_WC_MW_BIND_ERR;  // Invalidate it first.
  if (entry.bind.length == 0) {
    if (type2) return IBV_WC_MW_BIND_ERR;
    keys.unbind(window_key);
    return IBV_WC_SUCCESS;
  }
  const KeySlot* region = keys.find(entry.bind.region_key);
  const std::uint32_t writes = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;
  if (region == nullptr || region->flags != 0 || region->pd != pd_number_ ||
      !(region->access & IBV_ACCESS_MW_BIND) ||
      ((entry.bind.access & writes) && !(region->access & IBV_ACCESS_LOCAL_WRITE))) {
    return IBV_WC_MW_BIND_ERR;
  }
  if (entry.bind.address < region->iova ||
      entry.bind.address - region->iova > region->length ||
      entry.bind.length > region->length - (entry.bind.address - region->iova)) {
    return IBV_WC_MW_BIND_ERR;
  }
  keys.bind(window_key, entry.rkey, *region,
            {.pd = pd_number_,
             .access = entry.bind.access,
             .iova = entry.bind.address,
             .length = entry.bind.length,
             .flags = window->flags},
            type2 ? qpn_ : 0, entry.bind.region_key);
  return IBV_WC_SUCCESS;
}

bool QueuePair::invalidate_by_peer(std::uint32_t rkey) {
  const KeySlot* slot = engine_.keys.find(rkey);
  const bool usable = slot && (slot->flags & kKeyIsWindowType2) && slot->region_key != 0 &&
                      slot->bound_qpn == qpn_;
  if (usable) engine_.keys.unbind(rkey);
  return usable;
}

void QueuePair::count_sent(std::uint64_t messages, std::uint64_t bytes) {
  count(slot_->counters.messages_sent, messages);
  count(slot_->counters.bytes_sent, bytes);
  count(engine_.window->header.counters.messages_sent, messages);
  count(engine_.window->header.counters.bytes_sent, bytes);
}

void QueuePair::count_received(std::uint64_t messages, std::uint64_t bytes) {
  count(slot_->counters.messages_received, messages);
  count(slot_->counters.bytes_received, bytes);
  count(engine_.window->header.counters.messages_received, messages);
  count(engine_.window->header.counters.bytes_received, bytes);
}

}  // namespace isthmus::rdma
