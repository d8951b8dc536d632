// MemoryChannel: a connection between two processes of one host, without packets.
//
// One-sided requests are executed by the requester: it checks the key in the neighbour's window and
// moves the bytes itself (process_vm_readv, process_vm_writev), so the target's threads do nothing.
// Messages and atomics go through a ring in the target's window, and the target's progress takes
// them, reading the payload straight out of the sender's memory. A payload is copied once; up to
// kRingInlineBytes travel in the ring entry. What the target has in a memory file, the requester
// maps (shared_files.h), and no system call is left.
//
// Order: a one-sided request goes directly only while nothing of this QP waits in the ring; else it
// goes through the ring as well, behind what was posted before it.
//
// Faults: a neighbour that is gone or not ready leaves requests unanswered; they fail after the
// time that retries would have taken on the wire. A request the checks refuse goes through the
// ring, so that the target, too, learns of the error.
//
// Threading: shard-confined, under the engine's lock; the ring's atomics pair with the neighbour's.
// Input: everything read from the neighbour's window or from our own ring.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>

#include "rdma/key_table.h"
#include "rdma/receive_queue.h"
#include "rdma/send_queue.h"
#include "rdma/window.h"

namespace isthmus::rdma {

class PeerWindow;
class QueuePair;

class MemoryChannel {
 public:
  explicit MemoryChannel(QueuePair& qp) : qp_(qp) {}

  // Empties the ring, before the peer may post.
  void start();
  void reset();
  bool idle() const { return posted_ == retired_; }
  void skip_to(std::uint64_t number) { number_ = number; }
  std::uint64_t next_entry() const { return number_; }

  // Requester side. True: stopped only by its share of the round.
  bool transmit(std::uint64_t now);
  void retire(std::uint64_t now);
  void on_deadline(std::uint64_t now);
  // Takes back what the target has not begun.
  void cancel();

  // Target side: executes what is in our ring.
  void serve(std::uint64_t now);

 private:
  enum class Direct : std::uint8_t { kDone, kRefused };

  bool peer_ready();
  bool start_entry(SendEntry& entry, std::uint64_t now);
  Direct execute_directly(SendEntry& entry);
  bool copy_shared(const SendEntry& entry, const KeyValues& values);
  bool post_to_ring(SendEntry& entry, std::uint32_t flags);
  bool fill_payload(SendEntry& entry, RingEntry& slot);
  int resolve_entry(const SendEntry& entry, std::uint64_t number,
                    std::array<iovec, kMaxSge>& out);
  void finish(SendEntry& entry, RingEntry& slot);
  void fail_oldest(ibv_wc_status status);
  void arm_wait(std::uint64_t now);

  bool serve_entry(RingEntry& slot);
  ibv_wc_status execute(RingEntry& slot, const RingRequest& request);
  ibv_wc_status execute_send(const RingEntry& slot, const RingRequest& request);
  ibv_wc_status execute_write(const RingEntry& slot, const RingRequest& request);
  ibv_wc_status execute_read(const RingEntry& slot, const RingRequest& request);
  ibv_wc_status execute_atomic(RingEntry& slot, const RingRequest& request);
  bool pull(const RingEntry& slot, const RingRequest& request, std::span<const iovec> local);
  void complete_receive(const Receive& receive, const RingRequest& request, ibv_wc_status status);
  void capture_request(const SendEntry& entry, std::uint64_t number);
  void capture_arrival(const RingRequest& request, std::span<const iovec> payload);
  Ring& own_ring() const;
  Ring& peer_ring() const;

  QueuePair& qp_;
  // Requester: running numbers of ring entries, the send queue entry of each, and the one to start
  // next.
  std::uint64_t posted_ = 0;
  std::uint64_t retired_ = 0;
  std::array<std::uint64_t, kRingEntries> entry_of_{};
  std::uint64_t number_ = 0;
  std::uint64_t waiting_since_ns_ = 0;  // 0: nothing waits.
  std::uint32_t captured_psn_ = 0;      // Of the packets that a capture shows.
  // Target: running number of the ring entry to serve next.
  std::uint64_t served_ = 0;
  std::uint32_t captured_arrival_psn_ = 0;
};

// Tells the owner of a window to look at a queue pair, and wakes it if it sleeps.
void notify(const PeerWindow& peer, std::uint32_t qp_index);

}  // namespace isthmus::rdma
