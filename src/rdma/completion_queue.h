// CompletionQueue: finished work requests, in order, and the notification that one arrived.
//
// Threading: shard-confined, under the engine's lock.
// Spec: InfiniBand Architecture vol. 1, 10.8 (completion queues), 11.4.2 (polling, notification).
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <vector>

namespace isthmus::rdma {

struct EngineState;

struct Completion {
  ibv_wc wc;
  std::uint64_t timestamp_ns;
  std::uint32_t srq_number;  // Of an XRC receive; else 0.
};

class CompletionQueue {
 public:
  CompletionQueue(EngineState& engine, std::uint32_t capacity);
  ~CompletionQueue();
  CompletionQueue(const CompletionQueue&) = delete;
  CompletionQueue& operator=(const CompletionQueue&) = delete;

  // For the owner's bookkeeping, untouched here: the ABI object.
  void* cookie = nullptr;
  // Queue pairs and SRQs that name it.
  std::uint32_t in_use = 0;

  std::uint32_t capacity() const { return capacity_; }
  std::uint32_t size() const { return tail_ - head_; }
  bool empty() const { return head_ == tail_; }

  // Appends; when full the queue is broken for good, as the specification has it.
  void push(const Completion& completion, bool solicited);
  // The oldest; the queue must not be empty.
  const Completion& front() const { return ring_[head_ & mask_]; }
  void pop() { ++head_; }
  void arm(bool solicited_only);
  // Drops what a destroyed or reset QP left behind.
  void purge(std::uint32_t qpn);
  // kBusy-like false when more completions wait than would fit.
  bool resize(std::uint32_t capacity);

 private:
  enum class Armed : std::uint8_t { kNo, kSolicited, kAny };

  EngineState& engine_;
  std::vector<Completion> ring_;
  std::uint32_t capacity_;
  std::uint32_t mask_;
  std::uint32_t head_ = 0;
  std::uint32_t tail_ = 0;
  Armed armed_ = Armed::kNo;
  bool overrun_ = false;
};

}  // namespace isthmus::rdma
