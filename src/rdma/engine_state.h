// EngineState: what the objects of one engine share.
//
// Threading: shard-confined, under the engine's lock.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <queue>
#include <unordered_map>
#include <vector>

#include "rdma/engine.h"
#include "rdma/capture_ring.h"
#include "rdma/key_table.h"
#include "rdma/packet_burst.h"
#include "rdma/raw_packet.h"
#include "wire/icrc.h"
#include "wire/roce_packet.h"

namespace isthmus::rdma {

struct EngineState {
  EngineState(EngineOptions engine_options, PacketPort& packet_port,
              EngineListener& engine_listener);

  EngineOptions options;
  PacketPort& port;
  EngineListener& listener;
  Window* window;
  KeyTable keys;
  PacketBurst burst;
  wire::IcrcVerifier icrc;

  std::array<QueuePair*, kMaxQueuePairs> queue_pairs{};  // By QP index.
  std::array<std::uint8_t, kMaxQueuePairs> generations{};  // Of the next one.
  std::uint32_t next_index = 0;  // Where the search for a free index begins.
  std::uint32_t pd_count = 0;
  std::uint32_t next_number = 1;  // PDs and XRC domains.
  std::unordered_map<std::uint32_t, SharedReceiveQueue*> srqs;  // By SRQ number.
  std::map<Gid, std::vector<QueuePair*>> multicast;

  // Queue pairs with something to send; each at most once (QueuePair::scheduled_).
  std::vector<QueuePair*> active;
  std::vector<QueuePair*> running;  // The ones of the present round.

  // Deadlines, earliest first. An entry may be out of date: the queue pair knows better.
  struct Deadline {
    std::uint64_t at_ns;
    std::uint32_t qpn;
    bool operator>(const Deadline& other) const { return at_ns > other.at_ns; }
  };
  std::priority_queue<Deadline, std::vector<Deadline>, std::greater<>> deadlines;

  std::uint64_t read_bytes = 0;  // READs of all queue pairs: asked for and not here yet.
  std::uint32_t port_users = 0;  // Queue pairs that get packets from the port.
  std::uint32_t idle_polls = 0;
  std::uint32_t polls_since_post = 0;  // That found something.
  std::uint32_t prompt_answers = 0;    // In a row.
  std::unique_ptr<std::byte[]> null_scratch;
  std::unique_ptr<CaptureRing> capture;  // Null: nobody captures.
  std::unique_ptr<RawPackets> raw_packets;  // Null before the first raw packet queue pair.

  std::uint64_t now() const { return options.now_ns(); }
  QueuePair* find(std::uint32_t qpn);
  void schedule(QueuePair& qp);
  void forget(QueuePair& qp);
  // Asks for another look at the rings of `qp`, as a neighbour would.
  void note_activity(const QueuePair& qp);
  // kNullScratchBytes for null keys to point at.
  std::byte* null_memory();

  // One round of each kind of work; true: something moved.
  bool receive_packets(std::uint32_t most_batches);
  bool serve_neighbours();
  bool run_deadlines();
  bool run_active();

 private:
  void on_datagram(const IncomingDatagram& datagram);
  void capture_datagram(const IncomingDatagram& datagram, const wire::RocePacket& packet,
                        std::uint16_t ip_id);
  void on_multicast(const IncomingDatagram& datagram, const wire::RocePacket& packet);
};

// Owner-only counters need no read-modify-write.
inline void count(std::atomic<std::uint64_t>& counter, std::uint64_t by = 1) {
  // Relaxed: a number for people; nothing is ordered by it.
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
}

}  // namespace isthmus::rdma
