// What happens when the daemon goes away and when another one is there.

#include "base/log.h"
#include "rdmacm/qp_states.h"
#include "rdmacm/session.h"

namespace isthmus::rdmacm {

void Session::report_loss(Identifier& identifier) {
  QueuedEvent event;
  event.wire.cookie = identifier.cookie;
  event.wire.status = -ENODEV;
  switch (identifier.stage) {
    case Stage::kResolvingAddress: event.type = RDMA_CM_EVENT_ADDR_ERROR; break;
    case Stage::kResolvingRoute: event.type = RDMA_CM_EVENT_ROUTE_ERROR; break;
    case Stage::kConnecting: event.type = RDMA_CM_EVENT_UNREACHABLE; break;
    default: return;
  }
  identifier.stage = Stage::kOver;
  event.wire.type = static_cast<attach::CmEventType>(event.type);
  Channel::of(identifier.channel).put(event);
}

// As the program left it: bound, listening, member of its groups.
Result<void> Session::put_back(DaemonLink& link, Identifier& identifier) {
  identifier.handle = ISTHMUS_TRY(create_at_daemon(link, identifier));
  attach::CmBindAddress bind;
  {
    std::lock_guard lock(identifier.facts_mutex);
    bind.address = identifier.last_route.source;
  }
  if (bind.address.family != 0) {
    bind.header.command = attach::CmCommand::kBindAddress;
    bind.header.id = identifier.handle;
    static_cast<void>(ISTHMUS_TRY(link.exchange<attach::CmRouteReply>(bind)));
  }
  if (identifier.stage == Stage::kListening) {
    attach::CmListen listen;
    listen.header.command = attach::CmCommand::kListen;
    listen.header.id = identifier.handle;
    listen.backlog = identifier.backlog;
    static_cast<void>(ISTHMUS_TRY(link.exchange<attach::CmRouteReply>(listen)));
  }
  for (const auto& membership : identifier.memberships) {
    attach::CmJoinMulticast join;
    join.header.command = attach::CmCommand::kJoinMulticast;
    join.header.id = identifier.handle;
    join.cookie = membership->cookie;
    join.group = membership->group;
    join.join_flags = membership->join_flags;
    membership->handle = ISTHMUS_TRY(link.exchange<attach::CmHandleReply>(join)).handle;
  }
  return {};
}

Result<void> Session::restore(DaemonLink& link, Identifier& identifier) {
  attach::CmRestoreId request;
  request.header.command = attach::CmCommand::kRestoreId;
  request.cookie = identifier.cookie;
  request.channel = Channel::of(identifier.channel).handle;
  request.port_space = static_cast<attach::CmPortSpace>(identifier.ps);
  request.qp_type = static_cast<std::uint8_t>(identifier.qp_type);
  std::unique_lock lock(identifier.facts_mutex);
  request.active = identifier.facts.active ? 1 : 0;
  request.route = identifier.last_route;
  request.local_qpn = identifier.facts.local_qpn;
  request.remote_qpn = identifier.facts.remote_qpn;
  request.local_communication_id = identifier.facts.local_communication_id;
  request.remote_communication_id = identifier.facts.remote_communication_id;
  lock.unlock();
  identifier.handle = ISTHMUS_TRY(link.exchange<attach::CmHandleReply>(request)).handle;
  return {};
}

void Session::recover_identifier(DaemonLink& link, Identifier& identifier) {
  identifier.handle = 0;  // Names nothing: calls about what cannot be put back fail.
  switch (identifier.stage) {
    case Stage::kFresh:
    case Stage::kListening:
    case Stage::kResolved:
      if (const auto back = put_back(link, identifier); !back) {
        ISTHMUS_LOG(kWarning, "after the daemon was restarted: %s", back.error().message.c_str());
      }
      return;
    case Stage::kEstablished: {
      // A connectionless id needs nothing but its address and its groups.
      const auto back =
          identifier.is_datagram() ? put_back(link, identifier) : restore(link, identifier);
      if (back) return;
      ISTHMUS_LOG(kWarning, "a connection ends with the daemon's restart: %s",
                  back.error().message.c_str());
      static_cast<void>(qp_to_error(identifier));
      QueuedEvent event;
      event.type = RDMA_CM_EVENT_DISCONNECTED;
      event.wire.type = attach::CmEventType::kDisconnected;
      event.wire.cookie = identifier.cookie;
      Channel::of(identifier.channel).put(event);
      identifier.stage = Stage::kOver;
      return;
    }
    default:
      report_loss(identifier);
  }
}

Result<void> Session::recover(DaemonLink& link) {
  std::vector<Channel*> channels;
  std::vector<Identifier*> identifiers;
  {
    std::lock_guard lock(registry_mutex_);
    channels = channels_;
    for (const auto& [cookie, identifier] : by_cookie_) identifiers.push_back(identifier);
    requests_.clear();  // Their handles name nothing, and new ones may have the same numbers.
  }
  for (Channel* channel : channels) ISTHMUS_TRY_VOID(introduce(link, *channel));
  for (Identifier* identifier : identifiers) recover_identifier(link, *identifier);
  return {};
}

void Session::daemon_lost(Channel& channel) {
  std::lock_guard lock(link_mutex_);
  if (channel.has_socket()) return;  // Somebody else has noticed, and a new daemon is there.
  link_.reset();
  if (link_or_open()) return;
  std::vector<Identifier*> identifiers;
  {
    std::lock_guard registry(registry_mutex_);
    for (const auto& [cookie, identifier] : by_cookie_) {
      if (identifier->channel == &channel) identifiers.push_back(identifier);
    }
  }
  for (Identifier* identifier : identifiers) report_loss(*identifier);
  channel.look_again_later();
}

}  // namespace isthmus::rdmacm
