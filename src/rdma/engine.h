// Engine: one RDMA device for one user of it. The verbs behind an ibv_context, without the ABI.
//
// The value structs of infiniband/verbs.h (work requests, completions, attributes) are its words;
// none of the functions of that header are used. Errors are those the verbs man pages name.
//
// Life of a work request: post_send checks it and appends it to the QP's send queue; the QP's
// channel carries it (memory: this thread moves the bytes; RoCEv2: packets through the port);
// completions go to the CQ in order; poll_cq takes them out and, when it finds none, makes
// progress. Nothing here blocks, sleeps, takes a lock or starts a thread.
//
// Threading: shard-confined: the owner of the engine calls it, and every object made by it, under
// one lock.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "rdma/packet_port.h"
#include "rdma/window.h"
#include "wire/ip.h"

namespace isthmus::rdma {

class CaptureRing;
struct EngineState;
class CompletionQueue;
class FramePort;
class MemoryRegion;
class MemoryWindow;
class PeerWindow;
class ProtectionDomain;
class QueuePair;
class SharedReceiveQueue;
class XrcDomain;
struct FlowRule;

using Gid = std::array<std::byte, 16>;

// What the engine tells its owner. Called with the engine's lock held: note it and return.
class EngineListener {
 public:
  virtual ~EngineListener() = default;
  // A completion that satisfies the armed notification arrived in `cq`.
  virtual void on_completion_event(CompletionQueue& cq) = 0;
  // ibv_event_type of a QP, CQ or SRQ; exactly one pointer is not null.
  virtual void on_async_event(ibv_event_type type, QueuePair* qp, CompletionQueue* cq,
                              SharedReceiveQueue* srq) = 0;
};

struct EngineOptions {
  Window* window = nullptr;       // Of this function, zeroed, mapped as long as the engine lives.
  int doorbell_fd = -1;           // What neighbours ring; -1: nobody will.
  std::uint32_t function = 0;
  std::vector<wire::IpAddress> gids;  // By GID index.
  std::uint32_t datagram_bytes = 4096;  // Longest UD message: the port's active MTU.
  std::function<std::uint64_t()> random;  // Uniform 64 bits from a secure source.
  std::function<std::uint64_t()> now_ns;  // A monotonic clock.
  // Called for the first raw packet queue pair; none: there can be no such queue pairs.
  std::function<Result<std::unique_ptr<FramePort>>()> open_frame_port = {};
};

// What the daemon granted for a connection: see the attach protocol.
struct Admission {
  std::shared_ptr<PeerWindow> neighbour;  // Set: the peer is on this host and can be reached.
  std::uint32_t allowed_access =          // ibv_access_flags the policy leaves the peer.
      IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
};

struct MemorySpec {
  void* address = nullptr;
  std::size_t length = 0;
  std::uint64_t iova = 0;
  unsigned access = 0;  // ibv_access_flags
  // Where the memory is one of a file that neighbours may map: as in KeySlot.
  std::uint32_t shared_file = 0;
  std::uint64_t shared_offset = 0;
};

struct QueuePairSpec {
  ibv_qp_type type = IBV_QPT_RC;
  ProtectionDomain* pd = nullptr;        // Null for XRC_RECV.
  CompletionQueue* send_cq = nullptr;
  CompletionQueue* recv_cq = nullptr;
  SharedReceiveQueue* srq = nullptr;
  XrcDomain* xrcd = nullptr;             // XRC_RECV only.
  ibv_qp_cap cap{};                      // Asked; QueuePair::cap() tells what was given.
  bool signal_all = false;
};

struct SharedReceiveQueueSpec {
  ProtectionDomain* pd = nullptr;
  ibv_srq_type type = IBV_SRQT_BASIC;
  XrcDomain* xrcd = nullptr;
  CompletionQueue* cq = nullptr;  // XRC only.
  ibv_srq_attr attr{};            // max_wr, max_sge, srq_limit; SharedReceiveQueue::attr().
};

class Engine {
 public:
  Engine(EngineOptions options, PacketPort& port, EngineListener& listener);
  ~Engine();

  // Objects, owned by the caller and to be destroyed before the engine. One whose in_use is not 0
  // must not be destroyed: verbs has EBUSY for it.
  Result<std::unique_ptr<ProtectionDomain>> create_pd();
  Result<std::unique_ptr<XrcDomain>> create_xrcd();
  Result<std::unique_ptr<MemoryRegion>> create_mr(ProtectionDomain& pd, const MemorySpec& spec);
  // flags: IBV_REREG_MR_CHANGE_*. The keys may change. On error the region is as it was.
  Result<void> reregister_mr(MemoryRegion& mr, int flags, ProtectionDomain* pd,
                             const MemorySpec& spec);
  // Local only: reads as zeros, swallows writes.
  Result<std::unique_ptr<MemoryRegion>> create_null_mr(ProtectionDomain& pd);
  Result<std::unique_ptr<MemoryWindow>> create_mw(ProtectionDomain& pd, ibv_mw_type type);
  Result<std::unique_ptr<CompletionQueue>> create_cq(int entries);
  Result<void> resize_cq(CompletionQueue& cq, int entries);
  Result<std::unique_ptr<SharedReceiveQueue>> create_srq(const SharedReceiveQueueSpec& spec);
  // mask: IBV_SRQ_*.
  Result<void> modify_srq(SharedReceiveQueue& srq, const ibv_srq_attr& attr, int mask);
  Result<std::unique_ptr<QueuePair>> create_qp(const QueuePairSpec& spec);

  // `admission` is needed for the change to RTR of a connected QP.
  Result<void> modify_qp(QueuePair& qp, const ibv_qp_attr& attr, int mask,
                         const Admission* admission);
  void query_qp(const QueuePair& qp, ibv_qp_attr& attr, ibv_qp_init_attr& init) const;
  Result<void> attach_multicast(QueuePair& qp, const Gid& group);
  Result<void> detach_multicast(QueuePair& qp, const Gid& group);
  // Frames that match go to the raw packet queue pair, which stays in use until detach_flow() of
  // the number returned.
  Result<std::uint32_t> attach_flow(QueuePair& qp, const FlowRule& rule);
  void detach_flow(std::uint32_t number);

  // Data path: 0 or an errno value, as verbs has it; on error *bad is the first one not taken.
  int post_send(QueuePair& qp, ibv_send_wr* wr, ibv_send_wr** bad);
  int post_recv(QueuePair& qp, ibv_recv_wr* wr, ibv_recv_wr** bad);
  int post_srq_recv(SharedReceiveQueue& srq, ibv_recv_wr* wr, ibv_recv_wr** bad);
  // Number of completions put in wc. Makes progress when the queue is empty.
  int poll_cq(CompletionQueue& cq, int count, ibv_wc* wc, std::uint64_t* timestamps_ns);
  void request_notification(CompletionQueue& cq, bool solicited_only);

  // Moves everything that can move now. True: something did.
  bool progress();
  // Nanoseconds of the monotonic clock at which progress() has to run even if nothing arrives;
  // UINT64_MAX: never.
  std::uint64_t next_deadline_ns() const;
  // Before its owner sleeps on the port and the doorbell: false means there is work, do not sleep.
  // Either way neighbours ring from now on, until end_sleep(): several threads may sleep at once.
  bool prepare_to_sleep();
  void end_sleep();

  // The daemon's wishes.
  void revoke(std::uint32_t qpn);                          // To error, flushing.
  void restrict_access(std::uint32_t qpn, std::uint32_t allowed_access);
  Result<void> switch_channel(std::uint32_t qpn, ChannelKind kind);
  // Packets of both channels are recorded there; null: no more.
  void set_capture(std::unique_ptr<CaptureRing> ring);
  void set_gids(std::vector<wire::IpAddress> gids);
  std::span<const wire::IpAddress> gids() const;

  QueuePair* find_qp(std::uint32_t qpn);

  EngineState& state() { return *state_; }  // For the objects of this folder.

 private:
  std::unique_ptr<EngineState> state_;
};

}  // namespace isthmus::rdma
