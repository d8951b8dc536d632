// SharedReceiveQueue: receive requests that several queue pairs draw from.
//
// Threading: shard-confined, under the engine's lock.
#pragma once

#include <cstdint>

#include "rdma/engine.h"
#include "rdma/receive_queue.h"

namespace isthmus::rdma {

class SharedReceiveQueue {
 public:
  SharedReceiveQueue(EngineState& engine, const SharedReceiveQueueSpec& spec,
                     std::uint32_t number);
  ~SharedReceiveQueue();
  SharedReceiveQueue(const SharedReceiveQueue&) = delete;
  SharedReceiveQueue& operator=(const SharedReceiveQueue&) = delete;

  // Takes the oldest request; raises the limit event when the fill falls below it.
  bool take(Receive& receive);

  std::uint32_t number() const { return number_; }
  ibv_srq_attr attr() const {
    return {.max_wr = queue.max_requests(), .max_sge = queue.max_sge(), .srq_limit = limit_};
  }
  const SharedReceiveQueueSpec& spec() const { return spec_; }
  void set_limit(std::uint32_t limit) { limit_ = limit; }

  ReceiveQueue queue;
  void* cookie = nullptr;
  std::uint32_t in_use = 0;  // Queue pairs.

 private:
  EngineState& engine_;
  SharedReceiveQueueSpec spec_;
  std::uint32_t number_;
  std::uint32_t limit_;
};

}  // namespace isthmus::rdma
