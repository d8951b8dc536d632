#include "verbs/async_events.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <mutex>

#include "base/log.h"
#include "os/epoll.h"
#include "os/event_fd.h"
#include "os/poll.h"
#include "verbs/context.h"

namespace isthmus::verbs {
namespace {

constexpr int kPortNumber = 1;

bool is_about(const AsyncEvent& event, const void* object) {
  return event.qp == object || event.cq == object || event.srq == object;
}

template <class Object>
void acknowledge(Object& object, std::uint32_t& completed) {
  pthread_mutex_lock(&object.mutex);
  ++completed;
  pthread_cond_signal(&object.cond);
  pthread_mutex_unlock(&object.mutex);
}

}  // namespace

Result<void> AsyncEvents::open() {
  fd_ = ISTHMUS_TRY(os::create_event_fd(os::EventFdKind::kSemaphore));
  waiting_.reserve(kCapacity);
  return os::set_blocking(fd_.get());
}

void AsyncEvents::add(const AsyncEvent& event) {
  if (waiting_.size() == kCapacity) return;
  waiting_.push_back(event);
  os::signal(fd_.get());
}

bool AsyncEvents::take(ibv_async_event& out) {
  if (waiting_.empty()) return false;
  const AsyncEvent event = waiting_.front();
  waiting_.erase(waiting_.begin());
  os::drain(fd_.get());
  out.event_type = event.type;
  if (event.qp) {
    ++event.qp->async_events_taken;
    out.element.qp = event.qp->abi();
  } else if (event.cq) {
    ++event.cq->async_events_taken;
    out.element.cq = event.cq->abi();
  } else if (event.srq) {
    ++event.srq->async_events_taken;
    out.element.srq = event.srq;
  } else {
    out.element.port_num = kPortNumber;
  }
  return true;
}

void AsyncEvents::purge(const void* object) {
  const auto gone = std::erase_if(waiting_, [&](const auto& e) { return is_about(e, object); });
  for (std::size_t i = 0; i < gone; ++i) os::drain(fd_.get());
}

}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

int ibv_get_async_event(ibv_context* abi, ibv_async_event* event) {
  using namespace isthmus;
  verbs::Context& context = verbs::Context::of(abi);
  while (true) {
    if (context.is_inherited()) {
      errno = EIO;
      return -1;
    }
    {
      const std::scoped_lock guard{context.lock};
      if (context.async_events.take(*event)) return 0;
    }
    if (!os::is_blocking(abi->async_fd)) {
      errno = EAGAIN;
      return -1;
    }
    os::wait_readable(std::array{abi->async_fd}, os::kWaitForEver);
  }
}

void ibv_ack_async_event(ibv_async_event* event) {
  using isthmus::verbs::acknowledge;
  switch (event->event_type) {
    case IBV_EVENT_CQ_ERR:
      acknowledge(*event->element.cq, event->element.cq->async_events_completed);
      break;
    case IBV_EVENT_QP_FATAL:
    case IBV_EVENT_QP_REQ_ERR:
    case IBV_EVENT_QP_ACCESS_ERR:
    case IBV_EVENT_COMM_EST:
    case IBV_EVENT_SQ_DRAINED:
    case IBV_EVENT_PATH_MIG:
    case IBV_EVENT_PATH_MIG_ERR:
    case IBV_EVENT_QP_LAST_WQE_REACHED:
      acknowledge(*event->element.qp, event->element.qp->events_completed);
      break;
    case IBV_EVENT_SRQ_ERR:
    case IBV_EVENT_SRQ_LIMIT_REACHED:
      acknowledge(*event->element.srq, event->element.srq->events_completed);
      break;
    default: break;  // Of the device and the port: nothing waits for it.
  }
}

}  // extern "C"
#pragma GCC visibility pop
