// Shared receive queues.
#include <infiniband/verbs.h>

#include <pthread.h>

#include "verbs/context.h"
#include "verbs/operations.h"

namespace isthmus::verbs {
namespace {

// Zero for what is not asked.
struct SrqRequest {
  rdma::SharedReceiveQueueSpec spec;
  ibv_pd* pd = nullptr;
  void* cookie = nullptr;
};

Srq* create(Context& context, SrqRequest request) {
  if (!request.pd) return no_object(EINVAL);
  if (context.is_inherited()) return no_object(EIO);
  auto made = std::make_unique<Srq>();
  made->context = context.abi();
  made->pd = request.pd;
  made->srq_context = request.cookie;
  made->owner = &context;
  pthread_mutex_init(&made->mutex, nullptr);
  pthread_cond_init(&made->cond, nullptr);
  request.spec.pd = &Pd::of(request.pd).domain();

  const std::scoped_lock guard{context.lock};
  auto queue = context.engine().create_srq(request.spec);
  if (!queue) return no_object(queue.error());
  made->handle = (*queue)->number();
  (*queue)->cookie = made.get();
  made->queue = std::move(*queue);
  context.objects.srqs.insert(made.get());
  return made.release();
}

}  // namespace

ibv_srq* create_srq_ex(ibv_context* abi, ibv_srq_init_attr_ex* attr) {
  constexpr std::uint32_t kMask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD |
                                  IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ;
  if ((attr->comp_mask & ~kMask) != 0) return no_object(EOPNOTSUPP);
  const ibv_srq_type type =
      attr->comp_mask & IBV_SRQ_INIT_ATTR_TYPE ? attr->srq_type : IBV_SRQT_BASIC;
  if (type != IBV_SRQT_BASIC && type != IBV_SRQT_XRC) return no_object(EOPNOTSUPP);
  SrqRequest request{.spec = {.type = type, .attr = attr->attr}, .cookie = attr->srq_context};
  if (attr->comp_mask & IBV_SRQ_INIT_ATTR_PD) request.pd = attr->pd;
  if (type == IBV_SRQT_XRC) {
    constexpr std::uint32_t kNeeded = IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ;
    if ((attr->comp_mask & kNeeded) != kNeeded || !attr->xrcd || !attr->cq) {
      return no_object(EINVAL);
    }
    request.spec.xrcd = static_cast<Xrcd*>(attr->xrcd)->domain.get();
    request.spec.cq = Cq::of(attr->cq).queue.get();
  }
  Srq* made = create(Context::of(abi), request);
  if (made) {
    attr->attr.max_wr = made->queue->attr().max_wr;
    attr->attr.max_sge = made->queue->attr().max_sge;
  }
  return made;
}

int get_srq_num(ibv_srq* srq, std::uint32_t* number) {
  *number = srq->handle;
  return 0;
}

int post_srq_recv(ibv_srq* abi, ibv_recv_wr* wr, ibv_recv_wr** bad) {
  Srq& srq = Srq::of(abi);
  Context& context = *srq.owner;
  if (context.is_inherited()) [[unlikely]] {
    *bad = wr;
    return EIO;
  }
  const std::scoped_lock guard{context.lock};
  return context.engine().post_srq_recv(*srq.queue, wr, bad);
}

}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

ibv_srq* ibv_create_srq(ibv_pd* pd, ibv_srq_init_attr* attr) {
  using namespace isthmus::verbs;
  Srq* made = create(*Pd::of(pd).owner, {.spec = {.type = IBV_SRQT_BASIC, .attr = attr->attr},
                                         .pd = pd,
                                         .cookie = attr->srq_context});
  if (made) {
    attr->attr.max_wr = made->queue->attr().max_wr;
    attr->attr.max_sge = made->queue->attr().max_sge;
  }
  return made;
}

int ibv_modify_srq(ibv_srq* abi, ibv_srq_attr* attr, int mask) {
  using namespace isthmus::verbs;
  Srq& srq = Srq::of(abi);
  Context& context = *srq.owner;
  if (context.is_inherited()) return verbs_error(EIO);
  if ((mask & ~(IBV_SRQ_MAX_WR | IBV_SRQ_LIMIT)) != 0) return verbs_error(EINVAL);
  const std::scoped_lock guard{context.lock};
  const auto modified = context.engine().modify_srq(*srq.queue, *attr, mask);
  return modified ? 0 : verbs_error(modified.error());
}

int ibv_query_srq(ibv_srq* abi, ibv_srq_attr* attr) {
  using namespace isthmus::verbs;
  Srq& srq = Srq::of(abi);
  if (srq.owner->is_inherited()) return verbs_error(EIO);
  const std::scoped_lock guard{srq.owner->lock};
  *attr = srq.queue->attr();
  return 0;
}

int ibv_destroy_srq(ibv_srq* abi) {
  using namespace isthmus::verbs;
  Srq* srq = &Srq::of(abi);
  Context& context = *srq->owner;
  if (context.is_inherited()) return verbs_error(EIO);
  std::uint32_t taken = 0;
  {
    const std::scoped_lock guard{context.lock};
    if (srq->queue && srq->queue->in_use != 0) return verbs_error(EBUSY);
    if (srq->queue) srq->queue->cookie = nullptr;  // No events from now on.
    context.async_events.purge(srq);
    taken = srq->async_events_taken;
  }
  pthread_mutex_lock(&srq->mutex);
  while (srq->events_completed != taken) pthread_cond_wait(&srq->cond, &srq->mutex);
  pthread_mutex_unlock(&srq->mutex);
  {
    const std::scoped_lock guard{context.lock};
    context.objects.srqs.erase(srq);
    srq->queue.reset();
  }
  delete srq;
  return 0;
}

}  // extern "C"
#pragma GCC visibility pop
