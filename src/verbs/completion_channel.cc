#include "verbs/completion_channel.h"

#include <mutex>

#include "base/assert.h"
#include "os/event_fd.h"
#include "os/poll.h"
#include "verbs/context.h"

namespace isthmus::verbs {
namespace {

void unlink(Channel& channel, Cq& cq) {
  Cq* before = nullptr;
  for (Cq* at = channel.first; at; before = at, at = at->next) {
    if (at != &cq) continue;
    (before ? before->next : channel.first) = cq.next;
    if (channel.last == &cq) channel.last = before;
    cq.next = nullptr;
    return;
  }
}

void append(Channel& channel, Cq& cq) {
  cq.next = nullptr;
  (channel.last ? channel.last->next : channel.first) = &cq;
  channel.last = &cq;
}

// The descriptor counts what waits, but for what threads in ibv_get_cq_event are about to take.
void settle_descriptor(Channel& channel) {
  const std::uint32_t expected =
      channel.events > channel.awake ? channel.events - channel.awake : 0;
  for (; channel.signalled < expected; ++channel.signalled) os::signal(channel.event_fd.get());
  for (; channel.signalled > channel.events; --channel.signalled) {
    os::drain(channel.event_fd.get());
  }
}

Cq& take_event(Channel& channel) {
  Cq& cq = *channel.first;
  ISTHMUS_ASSERT(cq.events > 0);
  unlink(channel, cq);
  --channel.events;
  // To the end of the line: one busy queue must not keep the others' events waiting.
  if (--cq.events > 0) append(channel, cq);
  ++cq.completion_events_taken;
  return cq;
}

}  // namespace

void add_event(Cq& cq) {
  Channel& channel = Channel::of(cq.channel);
  if (cq.events++ == 0) append(channel, cq);
  ++channel.events;
  settle_descriptor(channel);
}

void purge_events(Channel& channel, Cq& cq) {
  if (cq.events == 0) return;
  unlink(channel, cq);
  channel.events -= cq.events;
  cq.events = 0;
  settle_descriptor(channel);
}

void Context::on_completion_event(rdma::CompletionQueue& queue) {
  Cq* cq = static_cast<Cq*>(queue.cookie);
  if (cq && cq->channel) add_event(*cq);
}

}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

ibv_comp_channel* ibv_create_comp_channel(ibv_context* abi) {
  using namespace isthmus;
  verbs::Context& context = verbs::Context::of(abi);
  if (context.is_inherited()) return verbs::no_object(EIO);
  auto fd = os::create_event_fd(os::EventFdKind::kSemaphore);
  if (!fd) return verbs::no_object(fd.error());
  if (const auto blocking = os::set_blocking(fd->get()); !blocking) {
    return verbs::no_object(blocking.error());
  }
  auto made = std::make_unique<verbs::Channel>();
  made->context = abi;
  made->fd = fd->get();
  made->owner = &context;
  made->event_fd = std::move(*fd);
  return made.release();
}

int ibv_destroy_comp_channel(ibv_comp_channel* abi) {
  using namespace isthmus::verbs;
  Channel* channel = &Channel::of(abi);
  if (!channel->owner->is_inherited()) {
    const std::scoped_lock guard{channel->owner->lock};
    if (channel->refcnt != 0) return verbs_error(EBUSY);
  }
  delete channel;
  return 0;
}

int ibv_get_cq_event(ibv_comp_channel* abi, ibv_cq** cq_out, void** cookie) {
  using namespace isthmus;
  verbs::Channel& channel = verbs::Channel::of(abi);
  verbs::Context& context = *channel.owner;
  if (context.is_inherited()) {
    errno = EIO;
    return -1;
  }
  std::unique_lock guard{context.lock};
  if (channel.events == 0) {
    channel.blocked_on = os::is_blocking(abi->fd);
    if (!channel.blocked_on) {
      context.engine().progress();
    } else {
      context.progress().wait_until(guard, abi->fd, channel.awake,
                                    [&] { return channel.events > 0; });
    }
  }
  if (channel.events == 0) {
    errno = EAGAIN;
    return -1;
  }
  verbs::Cq& cq = verbs::take_event(channel);
  verbs::settle_descriptor(channel);
  *cq_out = cq.abi();
  *cookie = cq.cq_context;
  return 0;
}

}  // extern "C"
#pragma GCC visibility pop
