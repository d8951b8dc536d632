// QueuePair: its state, its queues, and the two halves that speak for it.
//
// The requester half carries the send queue to the peer and completes it; the responder half
// executes what the peer's requester sends. They share nothing but the state. On the memory
// channel, MemoryChannel takes both parts; see there.
//
// Invariants: completions of one queue appear in the order of posting. In the error state nothing
// is executed any more and every posted request completes as flushed.
//
// Threading: shard-confined, under the engine's lock.
// Spec: InfiniBand Architecture vol. 1, 10.3 (queue pair states), 9.7 (reliable service).
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <memory>

#include "rdma/engine.h"
#include "rdma/memory_channel.h"
#include "rdma/receive_queue.h"
#include "rdma/requester.h"
#include "rdma/responder.h"
#include "rdma/send_queue.h"

namespace isthmus::rdma {

class QueuePair {
 public:
  QueuePair(EngineState& engine, const QueuePairSpec& spec, std::uint32_t qpn);
  ~QueuePair();
  QueuePair(const QueuePair&) = delete;
  QueuePair& operator=(const QueuePair&) = delete;

  std::uint32_t qpn() const { return qpn_; }
  ibv_qp_type type() const { return spec_.type; }
  ibv_qp_state state() const { return state_; }
  const ibv_qp_cap& cap() const { return spec_.cap; }
  const QueuePairSpec& spec() const { return spec_; }
  const ibv_qp_attr& attr() const { return attr_; }
  const Path& path() const { return path_; }
  std::uint32_t pd_number() const { return pd_number_; }
  std::uint32_t mtu_bytes() const { return mtu_bytes_; }
  QpSlot& slot() const { return *slot_; }
  EngineState& engine() const { return engine_; }
  ChannelKind channel() const { return channel_; }
  PeerWindow* neighbour() const { return neighbour_.get(); }
  // What the peer may do to us, and we to the peer, of the access flags.
  std::uint32_t access() const { return attr_.qp_access_flags & allowed_access_; }
  std::uint32_t allowed_access() const { return allowed_access_; }

  bool is_datagram() const { return spec_.type == IBV_QPT_UD; }
  bool is_raw_packet() const { return spec_.type == IBV_QPT_RAW_PACKET; }
  bool is_reliable() const {
    return spec_.type == IBV_QPT_RC || spec_.type == IBV_QPT_XRC_SEND ||
           spec_.type == IBV_QPT_XRC_RECV;
  }
  bool receives() const {
    return state_ == IBV_QPS_RTR || state_ == IBV_QPS_RTS || state_ == IBV_QPS_SQD ||
           state_ == IBV_QPS_SQE;
  }
  bool sends() const { return state_ == IBV_QPS_RTS || state_ == IBV_QPS_SQD; }
  // Whether new entries of the send queue may start.
  bool may_start() const { return state_ == IBV_QPS_RTS && channel_ == wanted_channel_; }

  Result<void> modify(const ibv_qp_attr& attr, int mask, const Admission* admission);
  void query(ibv_qp_attr& attr, ibv_qp_init_attr& init) const;

  int post_send(ibv_send_wr* wr, ibv_send_wr** bad);
  int post_recv(ibv_recv_wr* wr, ibv_recv_wr** bad);

  // Sends what can be sent now. True: there is more that could be sent at once.
  bool transmit(std::uint64_t now);
  void on_packet(const IncomingDatagram& datagram, const wire::RocePacket& packet,
                 std::uint64_t now);
  // An Ethernet frame for a raw packet queue pair.
  void on_frame(std::span<const std::byte> frame);
  // Looks at rings and neighbours: somebody said there is something.
  void on_activity(std::uint64_t now);
  void on_deadline(std::uint64_t now);

  // For the halves.
  bool can_receive() const;
  bool take_receive(Receive& receive, std::uint32_t srq_number = 0);
  // An XRC target has no protection domain of its own: each request names the shared queue whose
  // domain counts.
  void use_domain_of(std::uint32_t srq_number);
  void complete_receive(const Receive& receive, ibv_wc wc, bool solicited,
                        std::uint32_t srq_number = 0);
  // Completes the send queue's finished head. An entry that failed takes the QP to error.
  void retire_sends();
  // Executes a bind or an invalidation. The status of its completion.
  ibv_wc_status execute_local(SendEntry& entry);
  bool invalidate_by_peer(std::uint32_t rkey);
  void enter_error();
  // The peer broke the rules: error, and the program hears of it.
  void enter_error(ibv_event_type event);
  void arm_deadline(std::uint64_t at_ns);
  void note_communication();
  void count_sent(std::uint64_t messages, std::uint64_t bytes);
  void count_received(std::uint64_t messages, std::uint64_t bytes);

  void want_channel(ChannelKind kind);
  void set_allowed_access(std::uint32_t access);

  SendQueue send_queue;
  Requester requester;
  Responder responder;
  MemoryChannel memory;
  void* cookie = nullptr;
  std::uint32_t in_use = 0;  // Multicast groups and flow rules.
  bool scheduled = false;    // Belongs to EngineState::schedule.

 private:
  // queue_pair_state.cc
  Result<void> check_change(const ibv_qp_attr& attr, int mask, ibv_qp_state to) const;
  Result<Path> find_path(const ibv_ah_attr& attr) const;
  void apply_attributes(const ibv_qp_attr& attr, int mask);
  void enter_state(ibv_qp_state to, const Admission* admission);
  void enter_rtr(const Admission* admission);
  void count_port_user();
  void reset();
  void send_owed_answers();
  void flush_sends();
  void flush_receives();
  void publish();
  void purge_completions();
  int check_send(const ibv_send_wr& wr) const;
  void settle();
  void flush();
  SharedReceiveQueue* find_srq(std::uint32_t srq_number) const;

  EngineState& engine_;
  QueuePairSpec spec_;
  std::uint32_t qpn_;
  std::uint32_t pd_number_;
  QpSlot* slot_;
  ReceiveQueue receive_queue_;
  ibv_qp_state state_ = IBV_QPS_RESET;
  ibv_qp_attr attr_{};
  Path path_;
  std::uint32_t mtu_bytes_ = 256;
  std::uint32_t allowed_access_ = ~0u;
  ChannelKind channel_ = ChannelKind::kRoce;
  ChannelKind wanted_channel_ = ChannelKind::kRoce;
  std::shared_ptr<PeerWindow> neighbour_;
  std::uint64_t deadline_ns_ = UINT64_MAX;       // When on_deadline is due.
  std::uint64_t listed_deadline_ns_ = UINT64_MAX;  // The earliest one in EngineState::deadlines.
  bool communicated_ = false;
  bool drain_event_wanted_ = false;
  bool is_port_user_ = false;
};

}  // namespace isthmus::rdma
