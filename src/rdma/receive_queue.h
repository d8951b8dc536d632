// ReceiveQueue: posted receive work requests, of one QP or shared by several.
//
// Threading: shard-confined, under the engine's lock.
// Spec: InfiniBand Architecture vol. 1, 10.2.9 (shared receive queues).
#pragma once

#include <infiniband/verbs.h>

#include <array>
#include <cstdint>
#include <span>
#include <vector>

#include "rdma/limits.h"

namespace isthmus::rdma {

// A receive work request taken off its queue: the slot is free again, the copy is the QP's.
struct Receive {
  std::uint64_t wr_id = 0;
  std::uint32_t sge_count = 0;
  std::uint64_t bytes = 0;  // Sum of the list.
  std::array<ibv_sge, kMaxSge> sges;

  std::span<const ibv_sge> list() const { return {sges.data(), sge_count}; }
};

class ReceiveQueue {
 public:
  ReceiveQueue(std::uint32_t max_requests, std::uint32_t max_sge);

  std::uint32_t max_requests() const { return max_requests_; }
  std::uint32_t max_sge() const { return max_sge_; }
  std::uint32_t size() const { return tail_ - head_; }
  bool empty() const { return head_ == tail_; }

  // 0, ENOMEM when full, EINVAL for too long a list.
  int post(const ibv_recv_wr& wr);
  // False when empty.
  bool take(Receive& receive);
  void clear() { head_ = tail_; }
  // Keeps what is posted. False when that would not fit.
  bool resize(std::uint32_t max_requests);

 private:
  struct Slot {
    std::uint64_t wr_id;
    std::uint32_t sge_count;
  };

  std::uint32_t max_requests_;
  std::uint32_t max_sge_;
  std::uint32_t mask_;
  std::vector<Slot> slots_;
  std::vector<ibv_sge> sges_;  // max_sge_ for each slot.
  std::uint32_t head_ = 0;
  std::uint32_t tail_ = 0;
};

}  // namespace isthmus::rdma
