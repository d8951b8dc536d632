// The way of an event from the channel to the program.

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "os/epoll.h"
#include "os/poll.h"
#include "rdmacm/failure.h"
#include "rdmacm/qp_states.h"
#include "rdmacm/session.h"

namespace isthmus::rdmacm {
namespace {

void copy_private_data(const attach::CmPrivateData& from, Event& event, const void*& data,
                       std::uint8_t& bytes) {
  constexpr std::uint16_t kMostTheAbiCanSay = 255;
  const std::uint16_t count = std::min(from.bytes, kMostTheAbiCanSay);
  if (count == 0) return;
  std::memcpy(event.private_data.data(), from.data.data(), count);
  data = event.private_data.data();
  bytes = static_cast<std::uint8_t>(count);
}

void copy_connection(const attach::CmEvent& from, Event& event) {
  rdma_conn_param& to = event.param.conn;
  copy_private_data(from.private_data, event, to.private_data, to.private_data_len);
  to.responder_resources = from.connection.responder_resources;
  to.initiator_depth = from.connection.initiator_depth;
  to.flow_control = from.connection.flow_control;
  to.retry_count = from.connection.retry_count;
  to.rnr_retry_count = from.connection.rnr_retry_count;
  to.srq = from.connection.srq;
  to.qp_num = from.connection.qpn;
}

void copy_datagram(const attach::CmEvent& from, Event& event) {
  rdma_ud_param& to = event.param.ud;
  copy_private_data(from.private_data, event, to.private_data, to.private_data_len);
  to.ah_attr = to_verbs(from.address_handle);
  to.qp_num = from.connection.qpn;
  to.qkey = from.connection.qkey;
}

void copy_parameters(const attach::CmEvent& from, Event& event) {
  if (from.is_datagram != 0) {
    copy_datagram(from, event);
  } else {
    copy_connection(from, event);
  }
}

int status_of(const Error& error) { return -static_cast<int>(error.code); }

void turn_into(Event& event, rdma_cm_event_type type, const Error& error) {
  event.event = type;
  event.status = status_of(error);
}

}  // namespace

Identifier* Session::adopt_request(Identifier& listener, const attach::CmEvent& event) {
  auto child = std::make_unique<Identifier>(*this);
  child->context = listener.context;
  child->ps = listener.ps;
  child->qp_type = listener.qp_type;
  child->channel = listener.channel;
  child->handle = event.id;
  child->cookie = next_cookie_++;
  child->stage = Stage::kResolved;
  child->initiator_depth = event.connection.initiator_depth;
  child->responder_resources = event.connection.responder_resources;
  by_cookie_[child->cookie] = child.get();
  requests_[event.id] = child.get();
  return child.release();
}

Session::Target Session::intake(const QueuedEvent& event) {
  const attach::CmEvent& wire = event.wire;
  std::lock_guard lock(registry_mutex_);
  Target target;
  const auto find = [](auto& map, auto key) {
    const auto found = map.find(key);
    return found == map.end() ? nullptr : found->second;
  };
  if (event.type == RDMA_CM_EVENT_CONNECT_REQUEST) {
    target.identifier = find(by_cookie_, wire.listen_cookie);
    if (target.identifier != nullptr) target.child = adopt_request(*target.identifier, wire);
  } else if (wire.multicast != 0) {
    target.membership = find(memberships_, wire.cookie);
    if (target.membership != nullptr) {
      target.identifier = target.membership->identifier;
      ++target.membership->events_out;
    }
  } else if (wire.cookie != 0) {
    target.identifier = find(by_cookie_, wire.cookie);
  } else {
    target.identifier = find(requests_, wire.id);
  }
  if (target.identifier != nullptr) ++target.identifier->events_out;
  return target;
}

void Session::uncount(Identifier& identifier, Membership* membership) {
  std::lock_guard lock(registry_mutex_);
  ISTHMUS_ASSERT(identifier.events_out > 0);
  --identifier.events_out;
  if (membership != nullptr) --membership->events_out;
  acknowledged_.notify_all();
}

void Session::acknowledge(Event* event) {
  uncount(*event->owner, event->membership);
  delete event;
}

bool Session::handle_request(Event& event, const QueuedEvent& queued, Identifier& child) {
  event.listen_id = event.id;
  event.id = &child;
  copy_parameters(queued.wire, event);
  Result<void> ready = apply_route(child, queued.wire.route);
  if (ready && event.owner->synchronous) ready = migrate(child, nullptr);
  if (!ready) destroy_identifier(&child);
  return ready.has_value();
}

bool Session::handle_membership(Event& event, Membership& membership) {
  const bool joined_before = membership.joined;
  event.param.ud.private_data = membership.context;
  if (event.event != RDMA_CM_EVENT_MULTICAST_JOIN || event.status != 0) return true;
  membership.mgid = event.param.ud.ah_attr.grh.dgid;
  membership.joined = true;
  // A restarted daemon says again what the program knows already.
  if (joined_before) return false;
  ibv_qp* const qp = membership.identifier->qp;
  if (qp == nullptr || membership.join_flags == RDMA_MC_JOIN_FLAG_SENDONLY_FULLMEMBER) return true;
  const int error = ibv_attach_mcast(qp, &membership.mgid, event.param.ud.ah_attr.dlid);
  membership.attached = error == 0;
  if (error != 0) {
    event.event = RDMA_CM_EVENT_MULTICAST_ERROR;
    event.status = -(error > 0 ? error : errno);
  }
  return true;
}

// False: not for the program to see.
bool Session::handle_event(Event& event, const QueuedEvent& queued, const Target& target) {
  Identifier& identifier = *target.identifier;
  switch (queued.type) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
    case RDMA_CM_EVENT_ROUTE_RESOLVED: {
      identifier.stage = Stage::kResolved;
      const auto applied = apply_route(identifier, queued.wire.route);
      const bool address = queued.type == RDMA_CM_EVENT_ADDR_RESOLVED;
      if (!applied) {
        turn_into(event, address ? RDMA_CM_EVENT_ADDR_ERROR : RDMA_CM_EVENT_ROUTE_ERROR,
                  applied.error());
      }
      return true;
    }
    case RDMA_CM_EVENT_CONNECT_REQUEST:
      return handle_request(event, queued, *target.child);
    case RDMA_CM_EVENT_CONNECT_RESPONSE: {
      copy_parameters(queued.wire, event);
      if (identifier.qp == nullptr) return true;  // The program answers with rdma_establish.
      const auto followed = follow_response(identifier);
      event.event = RDMA_CM_EVENT_ESTABLISHED;
      if (!followed) turn_into(event, RDMA_CM_EVENT_CONNECT_ERROR, followed.error());
      identifier.connect_failed = !followed;
      return true;
    }
    case RDMA_CM_EVENT_ESTABLISHED:
      identifier.stage = Stage::kEstablished;
      copy_parameters(queued.wire, event);
      return true;
    case RDMA_CM_EVENT_REJECTED:
      if (identifier.connect_failed) return false;
      identifier.stage = Stage::kOver;
      copy_parameters(queued.wire, event);
      static_cast<void>(qp_to_error(identifier));
      return true;
    case RDMA_CM_EVENT_DISCONNECTED:
      if (identifier.connect_failed) return false;
      identifier.stage = Stage::kOver;
      copy_parameters(queued.wire, event);
      return true;
    case RDMA_CM_EVENT_MULTICAST_JOIN:
    case RDMA_CM_EVENT_MULTICAST_ERROR:
      copy_datagram(queued.wire, event);
      return target.membership == nullptr || handle_membership(event, *target.membership);
    case kEventUser:
      // The newest header calls this word of the union `arg`.
      std::memcpy(&event.param, &queued.argument, sizeof queued.argument);
      return true;
    default:
      copy_parameters(queued.wire, event);
      return true;
  }
}

std::unique_ptr<Event> Session::make_event(const QueuedEvent& queued, const Target& target) {
  auto event = std::make_unique<Event>();
  event->session = this;
  event->owner = target.identifier;
  event->membership = target.membership;
  event->id = target.identifier;
  event->event = static_cast<rdma_cm_event_type>(queued.type);
  event->status = queued.wire.status;
  if (handle_event(*event, queued, target)) return event;
  uncount(*target.identifier, target.membership);
  return nullptr;
}

namespace {

// Programs destroy a channel under a thread of theirs that waits for its next event, and count on
// that thread staying where it is until the process ends, as it does with the real library.
[[noreturn]] void sleep_for_ever() {
  for (;;) os::wait_readable(std::span<const int>{}, os::kWaitForEver);
}

}  // namespace

Result<Event*> Session::next_event(Channel& channel, Patience patience) {
  if (channel.enter()) {
    // Programs cancel threads that sleep here: leaving must not be forgotten then either.
    const auto leave = [](Channel* entered) { entered->leave(); };
    const std::unique_ptr<Channel, decltype(leave)> entered(&channel, leave);
    auto event = wait_for_event(channel, patience);
    if (event || !channel.closed()) return event;
  }
  if (patience == Patience::kNone) return fail_with(EBADF, "get an event of a destroyed channel");
  sleep_for_ever();
}

Result<Event*> Session::wait_for_event(Channel& channel, Patience patience) {
  while (!channel.closed()) {
    Target target;
    const auto queued =
        channel.take([&](const QueuedEvent& event) { target = intake(event); });
    if (queued && target.identifier != nullptr) {
      auto event = make_event(*queued, target);
      if (event != nullptr) return event.release();
      continue;
    }
    if (queued) {
      // For an id that is gone. A request that nobody will see must not stay open.
      if (queued->type == RDMA_CM_EVENT_CONNECT_REQUEST) destroy_handle(queued->wire.id);
      continue;
    }
    if (queued.error().code == ErrorCode::kClosed) {
      daemon_lost(channel);
      continue;
    }
    if (channel.is_time_to_look()) {
      daemon_lost(channel);
      continue;
    }
    if (patience == Patience::kNone || channel.non_blocking()) {
      return fail(ErrorCode::kAgain, "no event now");
    }
    channel.wait(os::kWaitForEver);
  }
  return fail_with(EBADF, "get an event of a destroyed channel");
}

}  // namespace isthmus::rdmacm
