// Responder: executes the requests that arrive over RoCEv2, and answers them in order.
//
// Primer: exactly one PSN is expected. What lies behind it was executed before and is acknowledged
// again (a READ is answered again, an atomic from the saved result); what lies ahead shows a loss,
// of which the requester hears once. Answers queue up, because a READ of a gigabyte is answered
// over many rounds while the requests behind it are executed already.
//
// Threading: shard-confined, under the engine's lock.
// Input: packets come from the wire; no value of one may trip an assertion.
// Spec: InfiniBand Architecture vol. 1, 9.7.3 to 9.7.5 (reliable), 9.8.2 (unreliable), 9.8.3.
#pragma once

#include <array>
#include <cstdint>
#include <deque>

#include "rdma/packet_burst.h"
#include "rdma/packet_port.h"
#include "rdma/psn.h"
#include "rdma/receive_queue.h"
#include "wire/aeth.h"
#include "wire/roce_packet.h"

namespace isthmus::rdma {

class QueuePair;

class Responder {
 public:
  explicit Responder(QueuePair& qp) : qp_(qp) {}

  // At the change to RTR: the first PSN.
  void start(Psn first);
  void reset();
  Psn expected() const { return expected_; }
  bool has_answers() const { return !answers_.empty(); }
  // Acknowledges once more what was acknowledged last. False: nothing was, or more came since.
  bool acknowledge_again();

  void on_request(const wire::RocePacket& packet, std::uint64_t now);
  // UC: no acknowledgements, a broken message is dropped.
  void on_unreliable_request(const wire::RocePacket& packet);
  // UD.
  void on_datagram(const IncomingDatagram& datagram, const wire::RocePacket& packet);
  // True: stopped only by its share of the round.
  bool transmit(PacketBurst& burst);
  // The message that is arriving will not be finished.
  void drop_message();
  // The receive of an unfinished message, for the flush. False: there is none.
  bool take_unfinished(Receive& receive);

 private:
  enum class Outcome : std::uint8_t {
    kDone,           // Executed; the PSN advances.
    kNotReady,       // No receive posted: ask to come again.
    kInvalid,        // NAK invalid request, error.
    kAccess,         // NAK remote access, error.
    kOperational,    // NAK remote operational, error.
  };
  enum class AnswerKind : std::uint8_t { kAck, kRead, kAtomic };
  struct Answer {
    AnswerKind kind;
    std::uint8_t syndrome;
    Psn psn;
    std::uint32_t msn;
    // READ
    std::uint64_t address;
    std::uint32_t rkey;
    std::uint32_t length;
    std::uint32_t packets;
    std::uint32_t sent;
    bool again;  // It was asked for before.
    // Atomic
    std::uint64_t original;
  };
  struct SavedAtomic {
    Psn psn;
    std::uint64_t original;
    bool valid;
  };

  Outcome execute(const wire::RocePacket& packet, std::uint32_t& psns);
  Outcome execute_send(const wire::RocePacket& packet);
  Outcome execute_write(const wire::RocePacket& packet);
  Outcome execute_read(const wire::RocePacket& packet, bool again, std::uint32_t& psns);
  Outcome execute_atomic(const wire::RocePacket& packet);
  Outcome execute_atomic_write(const wire::RocePacket& packet);
  void answer_empty_read(Psn psn);
  Outcome write_memory(std::uint64_t address, std::span<const std::byte> bytes, std::uint32_t rkey);
  bool check_position(const wire::RocePacket& packet) const;
  void complete_message(const wire::RocePacket& packet, bool is_write);
  void answer_duplicate(const wire::RocePacket& packet);
  void answer_ack(Psn psn, std::uint8_t syndrome);
  void answer(const Answer& next);
  bool send_read_packets(Answer& read, PacketBurst& burst, std::uint32_t& budget);
  bool refuse_read(const Answer& read, PacketBurst& burst);  // False.
  void send_short(const Answer& item, PacketBurst& burst);
  void refuse(const wire::RocePacket& packet, Outcome outcome);

  // The message whose packets are arriving.
  enum class Message : std::uint8_t { kNone, kSend, kWrite };

  QueuePair& qp_;
  Psn expected_;
  std::uint32_t msn_ = 0;  // Messages completed, 24 bits.
  bool gap_reported_ = false;
  bool acknowledged_ = false;  // What was executed last.
  Message message_ = Message::kNone;
  bool has_receive_ = false;
  Receive receive_;
  std::uint64_t offset_ = 0;         // Bytes of the message that have arrived.
  std::uint64_t write_address_ = 0;
  std::uint32_t write_rkey_ = 0;
  std::uint32_t write_length_ = 0;
  std::uint32_t srq_number_ = 0;     // XRC: of the message.
  std::deque<Answer> answers_;
  std::array<SavedAtomic, 128> atomics_{};  // As many as kMaxReadAtomic.
  std::uint32_t next_atomic_ = 0;
};

}  // namespace isthmus::rdma
