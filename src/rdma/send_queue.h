// SendQueue: posted send work requests from the oldest not yet completed to the newest.
//
// Entries are named by a running number, not a position, so that "sent up to here" and "completed
// up to here" are numbers that only grow.
//
// Threading: shard-confined, under the engine's lock.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "rdma/address_handle.h"
#include "rdma/psn.h"

namespace isthmus::rdma {

struct SendEntry {
  std::uint64_t wr_id;
  ibv_wr_opcode opcode;
  unsigned flags;            // ibv_send_flags
  std::uint32_t length;      // Bytes of the message.
  std::uint32_t sge_count;   // 0 with inline data.
  std::uint32_t immediate;   // imm_data as given, or invalidate_rkey.
  std::uint64_t remote_address;
  std::uint32_t rkey;
  std::uint32_t srq_number;  // XRC.
  union {
    struct {
      std::uint64_t compare_add;
      std::uint64_t swap;
    } atomic;
    struct {
      std::uint32_t window_key;  // As the program knows it.
      std::uint32_t region_key;
      std::uint64_t address;
      std::uint64_t length;
      unsigned access;
    } bind;
    struct {
      std::uint32_t qpn;
      std::uint32_t qkey;
    } ud;
  };
  Path path;  // UD: the address handle's, which may be destroyed after posting.

  // Set by the channel that carries it.
  ibv_wc_status status;         // What the completion will say.
  bool started;
  bool done;                    // Completes as soon as all before it have.
  Psn first_psn;
  std::uint32_t packets;        // PSNs it takes.
  std::uint32_t received;       // READ and atomic: response packets that arrived.
  std::uint32_t requested;      // READ: response packets asked for.
  std::uint64_t charge_before;  // Window charge of everything before it.
  std::uint64_t atomic_original;  // For captures.

  bool expects_response() const {
    return opcode == IBV_WR_RDMA_READ || opcode == IBV_WR_ATOMIC_WRITE || is_atomic();
  }
  // Brings back the original value.
  bool is_atomic() const {
    return opcode == IBV_WR_ATOMIC_CMP_AND_SWP || opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;
  }
};

class SendQueue {
 public:
  SendQueue(std::uint32_t max_requests, std::uint32_t max_sge, std::uint32_t max_inline);

  std::uint64_t head() const { return head_; }  // Number of the oldest entry.
  std::uint64_t tail() const { return tail_; }  // Number the next one will get.
  bool empty() const { return head_ == tail_; }
  bool full() const { return tail_ - head_ == max_requests_; }
  SendEntry& at(std::uint64_t number) { return entries_[number & mask_]; }
  std::span<ibv_sge> sges(std::uint64_t number) {
    return {sges_.data() + (number & mask_) * max_sge_, at(number).sge_count};
  }
  std::byte* inline_bytes(std::uint64_t number) {
    return inline_.data() + (number & mask_) * max_inline_;
  }

  // Copies the request; its inline data too. 0, ENOMEM when full, EINVAL for what does not fit.
  int post(const ibv_send_wr& wr, bool is_datagram);
  void pop() { ++head_; }
  // Takes back entries from `number` on: a list is posted whole by the extended API.
  void truncate(std::uint64_t number) { tail_ = number; }
  void clear() { head_ = tail_; }

 private:
  std::uint32_t max_requests_;
  std::uint32_t max_sge_;
  std::uint32_t max_inline_;
  std::uint32_t mask_;
  std::vector<SendEntry> entries_;
  std::vector<ibv_sge> sges_;
  std::vector<std::byte> inline_;
  std::uint64_t head_ = 0;
  std::uint64_t tail_ = 0;
};

}  // namespace isthmus::rdma
