#include "rdma/shared_receive_queue.h"

#include "base/assert.h"
#include "rdma/completion_queue.h"
#include "rdma/engine_state.h"
#include "rdma/memory_region.h"

namespace isthmus::rdma {

SharedReceiveQueue::SharedReceiveQueue(EngineState& engine, const SharedReceiveQueueSpec& spec,
                                       std::uint32_t number)
    : queue(spec.attr.max_wr, spec.attr.max_sge),
      engine_(engine),
      spec_(spec),
      number_(number),
      limit_(0) {
  ++spec_.pd->in_use;
  if (spec_.cq) ++spec_.cq->in_use;
  if (spec_.xrcd) ++spec_.xrcd->in_use;
  engine_.srqs[number_] = this;
}

SharedReceiveQueue::~SharedReceiveQueue() {
  ISTHMUS_ASSERT(in_use == 0);
  engine_.srqs.erase(number_);
  --spec_.pd->in_use;
  if (spec_.cq) --spec_.cq->in_use;
  if (spec_.xrcd) --spec_.xrcd->in_use;
}

bool SharedReceiveQueue::take(Receive& receive) {
  if (!queue.take(receive)) return false;
  if (limit_ != 0 && queue.size() < limit_) {
    limit_ = 0;  // Once; the program arms it again.
    engine_.listener.on_async_event(IBV_EVENT_SRQ_LIMIT_REACHED, nullptr, nullptr, this);
  }
  return true;
}

}  // namespace isthmus::rdma
