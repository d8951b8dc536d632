#include "rdma/completion_queue.h"

#include <bit>

#include "base/assert.h"
#include "rdma/engine_state.h"

namespace isthmus::rdma {

CompletionQueue::CompletionQueue(EngineState& engine, std::uint32_t capacity)
    : engine_(engine),
      ring_(std::bit_ceil(capacity)),
      capacity_(capacity),
      mask_(static_cast<std::uint32_t>(ring_.size()) - 1) {
  ++engine_.window->header.completion_queue_count;
}

CompletionQueue::~CompletionQueue() {
  ISTHMUS_ASSERT(in_use == 0);
  --engine_.window->header.completion_queue_count;
}

void CompletionQueue::push(const Completion& completion, bool solicited) {
  if (overrun_) return;
  if (size() == capacity_) {
    overrun_ = true;
    engine_.listener.on_async_event(IBV_EVENT_CQ_ERR, nullptr, this, nullptr);
    return;
  }
  ring_[tail_++ & mask_] = completion;
  const bool wakes = armed_ == Armed::kAny ||
                     (armed_ == Armed::kSolicited &&
                      (solicited || completion.wc.status != IBV_WC_SUCCESS));
  if (wakes) {
    armed_ = Armed::kNo;
    engine_.listener.on_completion_event(*this);
  }
}

void CompletionQueue::arm(bool solicited_only) {
  // Arming for any completion is not undone by arming for solicited ones.
  if (armed_ != Armed::kAny) armed_ = solicited_only ? Armed::kSolicited : Armed::kAny;
}

void CompletionQueue::purge(std::uint32_t qpn) {
  std::uint32_t kept = head_;
  for (std::uint32_t i = head_; i != tail_; ++i) {
    if (ring_[i & mask_].wc.qp_num != qpn) ring_[kept++ & mask_] = ring_[i & mask_];
  }
  tail_ = kept;
}

bool CompletionQueue::resize(std::uint32_t capacity) {
  if (size() > capacity) return false;
  std::vector<Completion> ring(std::bit_ceil(capacity));
  std::uint32_t count = 0;
  for (; !empty(); pop()) ring[count++] = front();
  ring_ = std::move(ring);
  mask_ = static_cast<std::uint32_t>(ring_.size()) - 1;
  capacity_ = capacity;
  head_ = 0;
  tail_ = count;
  return true;
}

}  // namespace isthmus::rdma
