// Requester: carries a send queue over RoCEv2 and completes it.
//
// Primer: each packet of a connection takes a PSN; a READ takes as many as its response will have.
// The responder acknowledges cumulatively. A loss shows as a NAK that names the PSN it expects, as
// a response out of order, or as silence until the timeout; each time we go back to the oldest
// packet not acknowledged and send from there (go-back-N). A receiver-not-ready NAK makes us wait.
//
// Flow control: at most window_ bytes are under way, charged per packet with what a packet costs in
// a receiver's socket buffer, so that a default buffer holds them; the window halves at a loss and
// grows by a packet for each one acknowledged. A long READ is asked for in pieces, because its
// responses fill our own buffer.
//
// Threading: shard-confined, under the engine's lock.
// Input: acknowledgements and responses come from the wire.
// Spec: InfiniBand Architecture vol. 1, 9.7.5 to 9.7.7, 9.8.2 (unreliable), 9.8.3 (datagram).
#pragma once

#include <cstdint>

#include "rdma/packet_burst.h"
#include "rdma/psn.h"
#include "rdma/send_queue.h"
#include "wire/roce_packet.h"

namespace isthmus::rdma {

class QueuePair;

class Requester {
 public:
  explicit Requester(QueuePair& qp) : qp_(qp) {}

  // At the change to RTS: the first PSN.
  void start(Psn first);
  void reset();
  bool idle() const { return next_ == unacked_; }  // Nothing under way.
  Psn next_psn() const { return next_; }

  // True: stopped only by its share of the round.
  bool transmit(PacketBurst& burst, std::uint64_t now);
  bool transmit_datagrams(PacketBurst& burst, std::uint64_t now);
  // An ACK, NAK, READ response or atomic response.
  void on_response(const wire::RocePacket& packet, std::uint64_t now);
  void on_deadline(std::uint64_t now);
  // Entries before this number were sent by another channel.
  void skip_to(std::uint64_t number);
  std::uint64_t next_entry() const { return number_; }

 private:
  enum class Step : std::uint8_t {
    kSent,
    kBlocked,  // Until the peer answers.
    kPaced,    // For a moment.
  };

  bool start_entry(SendEntry& entry);
  Step send_packets(SendEntry& entry, PacketBurst& burst, std::uint64_t now);
  bool keeps_pace(std::uint64_t bytes, std::uint64_t now);
  bool fits_read_window() const;
  // That many more are under way; negative: fewer, but not below 0.
  void expect_read_bytes(std::int64_t bytes);
  Step send_read_requests(SendEntry& entry, PacketBurst& burst);
  Step send_atomic(SendEntry& entry, PacketBurst& burst);
  bool send_packet(SendEntry& entry, std::uint32_t index, PacketBurst& burst);
  bool commit_with_payload(const wire::RocePacket& packet, const SendEntry& entry,
                           std::uint64_t offset, std::uint32_t bytes, PacketBurst& burst);
  void fail_entry(SendEntry& entry, ibv_wc_status status);
  void fail_oldest(ibv_wc_status status);
  // All before `psn` is acknowledged. False: a response that should have come first is missing.
  bool acknowledge(Psn psn, std::uint64_t now);
  void acknowledge_entry(SendEntry& entry);
  void on_acknowledgement(const wire::RocePacket& packet, std::uint64_t now);
  void on_nak(const wire::RocePacket& packet, std::uint64_t now);
  // The first entry that is sent and not complete; the queue's tail if there is none.
  std::uint64_t oldest_open();
  void on_data_response(const wire::RocePacket& packet, std::uint64_t number, std::uint64_t now);
  void on_read_response(const wire::RocePacket& packet, std::uint64_t number, std::uint64_t now);
  void on_atomic_response(const wire::RocePacket& packet, std::uint64_t number,
                          std::uint64_t now);
  // The response of an atomic is complete.
  void finish_response(SendEntry& entry, std::uint64_t now);
  void note_progress(std::uint64_t now);
  void go_back(std::uint64_t now, bool is_loss);
  void arm_timeout(std::uint64_t now);
  std::uint64_t charge_per_packet() const;
  std::uint32_t read_piece_packets() const;

  QueuePair& qp_;
  Psn next_;              // Of the next new packet.
  Psn unacked_;           // The oldest not acknowledged.
  Psn never_sent_;        // Of the entry that is being sent: packets from here on are not repeats.
  std::uint64_t number_ = 0;   // The entry to send from,
  std::uint32_t packet_ = 0;   // and its packet.
  std::uint32_t responses_pending_ = 0;  // Started READs and atomics that are not complete.
  std::uint32_t read_requests_ = 0;      // READ and atomic requests under way.
  std::uint64_t read_bytes_ = 0;    // Asked for and not here yet.
  std::uint64_t paced_until_ns_ = 0;  // Unreliable: when all that left is through at 1 GB/s.
  std::uint64_t charge_ = 0;        // Of everything started.
  std::uint64_t acked_charge_ = 0;  // Of everything acknowledged.
  std::uint64_t window_ = 0;
  std::uint64_t rnr_until_ns_ = 0;
  std::uint64_t went_back_ns_ = 0;
  Psn went_back_to_;
  bool went_back_ = false;
  std::uint8_t retries_left_ = 0;
  std::uint8_t rnr_retries_left_ = 0;
};

}  // namespace isthmus::rdma
