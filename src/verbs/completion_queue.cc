// Completion queues: creation, polling, notification, destruction.
#include <infiniband/verbs.h>

#include <pthread.h>

#include "os/process.h"
#include "rdma/limits.h"
#include "verbs/completion_channel.h"
#include "verbs/context.h"
#include "verbs/operations.h"

namespace isthmus::verbs {
namespace {

// In a row, finding nothing: 30 us of polling a neighbour, 200 us of polling the network.
constexpr std::uint32_t kPollsBeforeYield = 1024;

struct CqRequest {
  std::uint32_t entries = 0;
  void* cookie = nullptr;
  ibv_comp_channel* channel = nullptr;
  std::uint32_t vector = 0;
};

// With errno set: null.
std::unique_ptr<Cq> create(Context& context, const CqRequest& request) {
  if (context.is_inherited()) return no_object(EIO);
  if (request.vector >= static_cast<std::uint32_t>(kCompletionVectors)) return no_object(EINVAL);
  if (request.entries == 0 || request.entries > rdma::kMaxCqEntries) return no_object(EINVAL);
  auto made = std::make_unique<Cq>();
  made->context = context.abi();
  made->channel = request.channel;
  made->cq_context = request.cookie;
  made->owner = &context;
  pthread_mutex_init(&made->mutex, nullptr);
  pthread_cond_init(&made->cond, nullptr);

  const std::scoped_lock guard{context.lock};
  if (context.objects.cqs.size() >= kMaxCompletionQueues) return no_object(ENOMEM);
  auto queue = context.engine().create_cq(static_cast<int>(request.entries));
  if (!queue) return no_object(queue.error());
  made->cqe = static_cast<int>((*queue)->capacity());
  (*queue)->cookie = made.get();
  made->queue = std::move(*queue);
  if (request.channel) ++request.channel->refcnt;
  context.objects.cqs.insert(made.get());
  return made;
}

}  // namespace

ibv_cq_ex* create_cq_ex(ibv_context* abi, ibv_cq_init_attr_ex* attr) {
  constexpr std::uint64_t kWcFlags = std::uint64_t{IBV_WC_STANDARD_FLAGS} |
                                     IBV_WC_EX_WITH_COMPLETION_TIMESTAMP |
                                     IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK;
  constexpr std::uint32_t kFlags =
      IBV_CREATE_CQ_ATTR_SINGLE_THREADED | IBV_CREATE_CQ_ATTR_IGNORE_OVERRUN;
  constexpr std::uint32_t kMask = IBV_CQ_INIT_ATTR_MASK_FLAGS | IBV_CQ_INIT_ATTR_MASK_PD;
  const std::uint32_t flags = attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_FLAGS ? attr->flags : 0;
  if ((attr->comp_mask & ~kMask) != 0 || (attr->wc_flags & ~kWcFlags) != 0) {
    return no_object(EOPNOTSUPP);
  }
  if ((flags & ~kFlags) != 0) return no_object(EINVAL);
  // The other condition of a parent domain, its context's CQs only, cannot be broken by mistake.
  if ((attr->comp_mask & IBV_CQ_INIT_ATTR_MASK_PD) && !attr->parent_domain) {
    return no_object(EINVAL);
  }
  std::unique_ptr<Cq> made = create(Context::of(abi), {.entries = attr->cqe,
                                                       .cookie = attr->cq_context,
                                                       .channel = attr->channel,
                                                       .vector = attr->comp_vector});
  if (!made) return nullptr;
  made->single_threaded = flags & IBV_CREATE_CQ_ATTR_SINGLE_THREADED;
  fill_extended_poll(*made, attr->wc_flags);
  return made.release();
}

// Moderation asks for fewer events than completions, at most. Ours are as many: a hint not taken.
int modify_cq(ibv_cq*, ibv_modify_cq_attr* attr) {
  return attr->attr_mask & ~IBV_CQ_ATTR_MODERATE ? verbs_error(EINVAL) : 0;
}

int poll_cq(ibv_cq* abi, int count, ibv_wc* wc) {
  Cq& cq = Cq::of(abi);
  Context& context = *cq.owner;
  if (context.is_inherited()) [[unlikely]] return -EIO;
  context.lock.lock_politely();
  context.progress().note_poll();
  const int polled = context.engine().poll_cq(*cq.queue, count, wc, nullptr);
  context.progress().note_work();
  cq.empty_polls = polled == 0 ? cq.empty_polls + 1 : 0;
  const bool in_vain = cq.empty_polls > kPollsBeforeYield;
  context.lock.unlock();
  // On a machine with more runnable threads than processors, the peer may be waiting for this one.
  if (in_vain) [[unlikely]] os::yield_processor();
  return polled;
}

int req_notify_cq(ibv_cq* abi, int solicited_only) {
  Cq& cq = Cq::of(abi);
  Context& context = *cq.owner;
  if (context.is_inherited()) return EIO;
  const std::scoped_lock guard{context.lock};
  context.engine().request_notification(*cq.queue, solicited_only != 0);
  // Nobody has blocked in ibv_get_cq_event so far: the program may wait for the descriptor.
  if (cq.channel && !Channel::of(cq.channel).blocked_on) context.progress().note_armed();
  return 0;
}

}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

ibv_cq* ibv_create_cq(ibv_context* abi, int cqe, void* cq_context, ibv_comp_channel* channel,
                      int comp_vector) {
  using namespace isthmus::verbs;
  if (cqe < 1 || comp_vector < 0) return no_object(EINVAL);
  std::unique_ptr<Cq> made =
      create(Context::of(abi), {.entries = static_cast<std::uint32_t>(cqe),
                                .cookie = cq_context,
                                .channel = channel,
                                .vector = static_cast<std::uint32_t>(comp_vector)});
  return made ? made.release()->abi() : nullptr;
}

int ibv_resize_cq(ibv_cq* abi, int cqe) {
  using namespace isthmus::verbs;
  Cq& cq = Cq::of(abi);
  Context& context = *cq.owner;
  if (context.is_inherited()) return verbs_error(EIO);
  const std::scoped_lock guard{context.lock};
  const auto resized = context.engine().resize_cq(*cq.queue, cqe);
  if (!resized) return verbs_error(resized.error());
  cq.cqe = static_cast<int>(cq.queue->capacity());
  return 0;
}

int ibv_destroy_cq(ibv_cq* abi) {
  using namespace isthmus::verbs;
  Cq* cq = &Cq::of(abi);
  Context& context = *cq->owner;
  if (context.is_inherited()) return verbs_error(EIO);
  std::uint32_t completions_taken = 0;
  std::uint32_t async_taken = 0;
  {
    const std::scoped_lock guard{context.lock};
    if (cq->queue && cq->queue->in_use != 0) return verbs_error(EBUSY);
    if (cq->queue) cq->queue->cookie = nullptr;  // No events from now on.
    if (cq->channel) {
      purge_events(Channel::of(cq->channel), *cq);
      --cq->channel->refcnt;
    }
    context.async_events.purge(cq);
    completions_taken = cq->completion_events_taken;
    async_taken = cq->async_events_taken;
  }
  // Whoever took an event may still be using the queue it names.
  pthread_mutex_lock(&cq->mutex);
  while (cq->comp_events_completed != completions_taken ||
         cq->async_events_completed != async_taken) {
    pthread_cond_wait(&cq->cond, &cq->mutex);
  }
  pthread_mutex_unlock(&cq->mutex);
  {
    const std::scoped_lock guard{context.lock};
    context.objects.cqs.erase(cq);
    cq->queue.reset();
  }
  delete cq;
  return 0;
}

void ibv_ack_cq_events(ibv_cq* cq, unsigned int nevents) {
  pthread_mutex_lock(&cq->mutex);
  cq->comp_events_completed += nevents;
  pthread_cond_signal(&cq->cond);
  pthread_mutex_unlock(&cq->mutex);
}

}  // extern "C"
#pragma GCC visibility pop
