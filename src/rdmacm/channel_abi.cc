// The event channel functions of rdma_cma.h.

#include "rdmacm/outcome.h"
#include "rdmacm/session.h"

using isthmus::rdmacm::Channel;
using isthmus::rdmacm::Event;
using isthmus::rdmacm::failed;
using isthmus::rdmacm::Session;

rdma_event_channel* rdma_create_event_channel() {
  const auto channel = Session::current().create_channel();
  if (!channel) {
    failed(channel.error());
    return nullptr;
  }
  return *channel;
}

void rdma_destroy_event_channel(rdma_event_channel* channel) {
  Session::current().destroy_channel(&Channel::of(channel));
}

int rdma_get_cm_event(rdma_event_channel* channel, rdma_cm_event** event) {
  if (channel == nullptr || event == nullptr) return failed(EINVAL);
  const auto next = Session::current().next_event(Channel::of(channel));
  if (!next) return failed(next.error());
  *event = *next;
  return 0;
}

int rdma_ack_cm_event(rdma_cm_event* event) {
  if (event == nullptr) return failed(EINVAL);
  auto* const own = static_cast<Event*>(event);
  own->session->acknowledge(own);
  return 0;
}

int rdma_write_cm_event(rdma_cm_id* id, rdma_cm_event_type event, int status,
                        uint64_t argument) {
  using namespace isthmus::rdmacm;
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  if (static_cast<int>(event) != kEventUser) return failed(EINVAL);
  QueuedEvent queued;
  queued.wire.cookie = (*identifier)->cookie;
  queued.wire.status = status;
  queued.type = kEventUser;
  queued.argument = argument;
  Channel::of(id->channel).put(queued);
  return 0;
}
