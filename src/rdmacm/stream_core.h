// StreamCore: the protocol of a connected stream rsocket, without verbs, threads or clocks.
//
// Primer: both ends have a receive buffer of two halves. A half that the program has read empty is
// offered to the peer again as its next target. The sender copies data into its send buffer, a
// ring, and writes it into the current target. It needs four things: a work request of the send
// queue, room in the send buffer, credit (the peer keeps one queue entry per data message) and
// bytes left in the target. Control messages have work requests of their own, so that credit can
// always be given.
//
//     send()  ->  send buffer  ->  RDMA write with immediate  ->  peer's receive buffer
//                                                             <-  credit, next target
//
// Invariants: the send buffer's used part is [oldest unfinished write, write position); writes
// finish in order. Unread bytes never exceed the receive buffer: a peer that says otherwise is cut
// off.
//
// Threading: the socket's lock.
// Input: immediates, lengths and target entries come from the peer.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "rdmacm/stream_wire.h"

namespace isthmus::rdmacm {

struct StreamWrite {
  std::span<const ibv_sge> segments;
  bool inlined = false;  // The segments' bytes are taken at once.
  std::uint64_t address = 0;
  std::uint32_t key = 0;
  std::optional<std::uint32_t> immediate;
  std::uint32_t tag = 0;  // Comes back in on_sent().
};

// The QP. Each call is one work request.
class StreamPort {
 public:
  virtual ~StreamPort() = default;
  virtual Result<void> write(const StreamWrite& write) = 0;
  virtual Result<void> post_receive() = 0;
};

struct StreamSizes {
  std::uint16_t send_queue = 384;
  std::uint16_t receive_queue = 384;
  std::uint32_t send_bytes = 1u << 17;
  std::uint32_t receive_bytes = 1u << 17;
  std::uint32_t inline_bytes = 64;
  std::uint32_t iomap_count = 0;
};

// Registered memory of the socket; lives as long as the core.
struct StreamMemory {
  std::byte* send = nullptr;      // send_bytes, and kControlBytes for control messages.
  std::uint32_t send_key = 0;
  std::byte* receive = nullptr;   // receive_bytes.
  std::uint32_t receive_key = 0;  // The peer's key.
  std::byte* lists = nullptr;     // list_bytes(): the target list, then the mapping list.
  std::uint32_t lists_key = 0;    // The peer's key.
};

enum class Peek { kNo, kYes };
enum class ShutWhat { kReceive, kSend, kBoth };

class StreamCore {
 public:
  // Work requests of the send queue that only control messages use.
  static constexpr std::uint32_t kControlSlots = 4;
  static constexpr std::uint32_t kControlBytes = kControlSlots * sizeof(Target);
  static std::size_t list_bytes(const StreamSizes& sizes);

  StreamCore(const StreamSizes& sizes, const StreamMemory& memory, StreamPort& port);
  StreamCore(const StreamCore&) = delete;
  StreamCore& operator=(const StreamCore&) = delete;

  ConnectData offer() const;
  // The peer's offer. From now on the stream is open.
  void open(const ConnectData& peer);

  bool is_open() const { return open_; }
  bool readable() const { return readable_; }  // More may come.
  bool writable() const { return writable_; }
  bool has_data() const { return !messages_.empty(); }
  bool can_send() const;
  bool can_control() const { return control_in_flight_ < kControlSlots; }
  bool all_sent() const { return writes_in_flight_ == 0 && control_in_flight_ == 0; }
  // 0, or why the stream broke (errno).
  int error() const { return error_; }

  // Takes as much as can leave now; 0 when can_send() is false.
  Result<std::size_t> send(std::span<const std::byte> data);
  // As much as has arrived.
  std::size_t receive(std::span<std::byte> into, Peek peek);
  // Data that goes to the mapping of the peer that covers `offset`. kNotFound: no mapping does.
  Result<std::size_t> write_mapped(std::span<const std::byte> data, std::uint64_t offset);
  // Tells the peer of a mapping: entry `index` of its list.
  Result<void> announce_mapping(std::uint32_t index, const IomapEntry& entry);
  std::uint32_t peer_iomap_count() const { return peer_iomap_.length; }

  // Says goodbye for one or both directions; needs can_control().
  Result<void> shut(ShutWhat what);
  Result<void> send_keepalive();
  // The connection is gone. `error` 0: in order.
  void close(int error);

  void on_received(std::uint32_t immediate, std::uint32_t bytes);
  void on_sent(std::uint32_t tag, bool succeeded);
  // After a batch of the two above: gives back receives and credit.
  Result<void> settle();

 private:
  struct Piece {
    std::array<ibv_sge, 2> segments;
    std::uint32_t count;
    bool inlined;
  };

  Result<void> control(StreamControl what);
  Result<void> give_credit();
  Piece stage(std::span<const std::byte> data);
  void use_target(std::uint32_t bytes);
  void load_target();
  void hang_up();
  std::uint32_t send_room() const { return sizes_.send_bytes - send_used_; }
  IomapEntry iomap_entry(std::uint32_t index) const;

  const StreamSizes sizes_;
  const StreamMemory memory_;
  StreamPort& port_;

  bool open_ = false;
  bool readable_ = false;
  bool writable_ = false;
  int error_ = 0;

  // Sending.
  std::uint32_t writes_in_flight_ = 0;
  std::uint32_t control_in_flight_ = 0;
  std::uint32_t control_next_ = 0;      // Which control buffer comes next.
  std::uint32_t send_position_ = 0;     // Of the ring.
  std::uint32_t send_used_ = 0;
  std::uint16_t messages_sent_ = 0;     // Modulo 2^16, as is the limit.
  std::uint16_t messages_allowed_ = 0;
  Target target_;                       // What is left of the current one.
  std::uint32_t target_index_ = 0;      // Its place in our list.
  std::uint32_t targets_announced_ = 0; // Written by the peer, not yet taken.

  // The peer's lists.
  Target peer_targets_;
  std::uint32_t peer_target_index_ = 1;  // Entry 0 was the buffer of its offer.
  Target peer_iomap_;
  bool swap_ = false;

  // Receiving.
  std::deque<std::uint32_t> messages_;  // Bytes of each message not read to its end.
  std::uint32_t unread_bytes_ = 0;
  std::uint32_t read_position_ = 0;
  std::uint32_t free_bytes_ = 0;        // Read, not yet offered again.
  std::uint32_t free_position_ = 0;     // Where the next half to offer begins.
  std::uint16_t messages_read_ = 0;
  std::uint16_t credit_due_ = 0;        // messages_read_ at which credit is given.
  std::uint32_t receives_to_post_ = 0;
};

}  // namespace isthmus::rdmacm
