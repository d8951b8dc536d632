// Ids and addresses; options and multicast.
#include "cm/manager.h"

#include <infiniband/verbs.h>

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace isthmus::cm {
namespace {

constexpr std::uint32_t kMaxBacklog = 4096;
constexpr std::uint32_t kV4Loopback = 0x7f00'0001;
constexpr std::uint16_t kMulticastLid = 0xc000;  // The first one; RoCE has no use for it.
constexpr std::uint32_t kMulticastQpn = 0xff'ffff;
constexpr std::uint8_t kHopLimit = 64;

wire::IpAddress loopback_of(Family family) {
  if (family == Family::kV4) return wire::IpAddress::from_v4(kV4Loopback);
  wire::IpAddress::Bytes bytes{};
  bytes.back() = std::byte{1};
  return wire::IpAddress{bytes};
}

SocketAddress wildcard_of(const SocketAddress& like) {
  SocketAddress any{.family = like.family, .infiniband = like.infiniband, .space = like.space};
  if (like.family == Family::kV4) any.ip = wire::IpAddress::from_v4(0);
  return any;
}

std::uint8_t default_qp_type(wire::PortSpace space) {
  switch (space) {
    case wire::PortSpace::kUdp:
    case wire::PortSpace::kIpoib:
      return IBV_QPT_UD;
    case wire::PortSpace::kTcp:
    case wire::PortSpace::kIb:
      return IBV_QPT_RC;
  }
  return IBV_QPT_RC;
}

}  // namespace

bool SocketAddress::is_wildcard() const {
  return ip.is_zero() || ip == wire::IpAddress::from_v4(0);
}

Manager::Manager(const Settings& settings, ExchangeTable::Random random, std::uint64_t node_guid,
                 const HostAddresses& addresses, PolicyGate& gate)
    : settings_(settings),
      addresses_(addresses),
      gate_(gate),
      random_(random),
      agent_(settings, random, node_guid, *this),
      ports_(std::move(random)) {}

Id& Manager::make_id(ClientId client, wire::PortSpace space, std::uint8_t qp_type) {
  while (next_handle_ == 0 || ids_.contains(next_handle_)) ++next_handle_;
  auto id = std::make_unique<Id>();
  id->handle = next_handle_++;
  id->client = client;
  id->space = space;
  // Only the IB port space leaves the choice.
  id->qp_type = space == wire::PortSpace::kIb && qp_type != 0 ? qp_type : default_qp_type(space);
  Id& made = *id;
  ids_[made.handle] = std::move(id);
  return made;
}

IdHandle Manager::create_id(ClientId client, wire::PortSpace space, std::uint8_t qp_type) {
  return make_id(client, space, qp_type).handle;
}

void Manager::destroy_id(std::uint64_t now_ns, IdHandle handle) {
  Id* id = find_mutable(handle);
  if (id == nullptr) return;
  if (id->exchange != ExchangeId::kNone) agent_.abandon(now_ns, id->exchange);
  leave_backlog(*id);
  if (id->holds_port) ports_.release(id->space, id->source.port, handle);
  std::erase_if(events_, [&](const Event& e) { return e.id == handle; });
  ids_.erase(handle);
}

const Id* Manager::find(IdHandle handle) const {
  const auto found = ids_.find(handle);
  return found == ids_.end() ? nullptr : found->second.get();
}

Id* Manager::find_mutable(IdHandle handle) { return const_cast<Id*>(find(handle)); }

Result<Id*> Manager::in_state(IdHandle handle, std::initializer_list<IdState> states,
                              const char* what) {
  Id* id = find_mutable(handle);
  if (id == nullptr) return fail(ErrorCode::kInvalid, "%s: no such id", what);
  if (std::ranges::find(states, id->state) == states.end()) {
    return fail(ErrorCode::kInvalid, "%s: not possible in the id's state %u", what,
                static_cast<unsigned>(id->state));
  }
  return id;
}

void Manager::leave_backlog(Id& id) {
  Id* listener = find_mutable(std::exchange(id.listener, 0));
  if (listener == nullptr) return;
  ISTHMUS_ASSERT(listener->pending > 0);
  --listener->pending;
}

Event& Manager::add_event(const Id& id, EventType type, std::int32_t status) {
  Event& event = events_.emplace_back();
  event.type = type;
  event.status = status;
  event.id = id.handle;
  event.is_datagram = id.qp_type == IBV_QPT_UD;
  return event;
}

std::vector<Event> Manager::take_events() { return std::exchange(events_, {}); }

Result<void> Manager::bind(IdHandle handle, const SocketAddress& address) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kIdle}, "bind_addr"));
  return bind(*id, address);
}

Result<void> Manager::bind(Id& id, const SocketAddress& address) {
  std::optional<LocalAddress> device;
  if (!address.is_wildcard()) {
    device = addresses_.find(address.ip);
    if (!device) {
      return fail(ErrorCode::kAddressNotAvailable, "bind_addr: %s is no address of this host",
                  address.ip.to_string().c_str());
    }
  }
  if (address.space) id.space = *address.space;
  const bool family_only = id.family_only.value_or(address.family == Family::kV4);
  const std::uint16_t port =
      ISTHMUS_TRY(ports_.bind(id.space, address.port,
                              PortClaim{.holder = id.handle,
                                        .family = address.family,
                                        .wildcard = address.is_wildcard(),
                                        .ip = address.ip,
                                        .family_only = family_only,
                                        .reuse_address = id.reuse_address}));
  id.holds_port = true;
  id.source = address;
  id.source.port = port;
  id.device = device;
  id.state = IdState::kBound;
  return {};
}

Result<void> Manager::resolve_address(IdHandle handle, const std::optional<SocketAddress>& source,
                                      const SocketAddress& destination) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kIdle, IdState::kBound}, "resolve_addr"));
  const SocketAddress from = id->state == IdState::kBound
                                 ? id->source
                                 : source.value_or(wildcard_of(destination));
  if (from.family != destination.family) {
    return fail(ErrorCode::kInvalid, "resolve_addr: source and destination of two families");
  }
  if (id->state == IdState::kIdle) ISTHMUS_TRY_VOID(bind(*id, from));
  const Result<void> resolved = resolve_address(*id, destination);
  if (resolved) {
    id->state = IdState::kAddressResolved;
    add_event(*id, EventType::kAddressResolved);
  } else {
    add_event(*id, EventType::kAddressError, -static_cast<int>(resolved.error().code));
  }
  return {};
}

Result<void> Manager::resolve_address(Id& id, const SocketAddress& destination) {
  SocketAddress to = destination;
  // The wildcard as a destination means this host.
  if (to.is_wildcard()) to.ip = id.device ? id.device->ip : loopback_of(to.family);
  if (!id.device) {
    id.device = ISTHMUS_TRY(addresses_.source_for(to.ip));
    id.source.ip = id.device->ip;
    if (destination.is_wildcard()) to.ip = id.device->ip;
  }
  id.destination = to;
  id.destination_known = true;
  return {};
}

Result<void> Manager::resolve_route(IdHandle handle) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kAddressResolved}, "resolve_route"));
  id->state = IdState::kRouteResolved;
  add_event(*id, EventType::kRouteResolved);
  return {};
}

Result<void> Manager::listen(IdHandle handle, std::int32_t backlog) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kIdle, IdState::kBound, IdState::kListening},
                                "listen"));
  if (id->state == IdState::kIdle) {
    ISTHMUS_TRY_VOID(bind(*id, wildcard_of(SocketAddress{.family = Family::kV4})));
  }
  ISTHMUS_TRY_VOID(ports_.listen(id->space, id->source.port, handle));
  const bool usable = backlog > 0 && static_cast<std::uint32_t>(backlog) < kMaxBacklog;
  id->backlog = usable ? static_cast<std::uint32_t>(backlog) : kMaxBacklog;
  if (id->state != IdState::kListening) ++counters_.listens;
  id->state = IdState::kListening;
  return {};
}

Result<void> Manager::set_reuse_address(IdHandle handle, bool value) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kIdle, IdState::kBound}, "REUSEADDR"));
  if (id->state == IdState::kBound && value != id->reuse_address) {
    return fail(ErrorCode::kInvalid, "REUSEADDR: set it before the id is bound");
  }
  id->reuse_address = value;
  return {};
}

Result<void> Manager::set_family_only(IdHandle handle, bool value) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kIdle}, "AFONLY"));
  id->family_only = value;
  return {};
}

Result<void> Manager::set_type_of_service(IdHandle handle, std::uint8_t value) {
  Id* id = find_mutable(handle);
  if (id == nullptr) return fail(ErrorCode::kInvalid, "TOS: no such id");
  id->type_of_service = value;
  return {};
}

Result<void> Manager::set_ack_timeout(IdHandle handle, std::uint8_t value) {
  Id* id = find_mutable(handle);
  if (id == nullptr || value > 31) return fail(ErrorCode::kInvalid, "ACK_TIMEOUT: 0 to 31");
  id->ack_timeout = value;
  return {};
}

AddressHandle Manager::address_handle_of(const Id& id, const ConnectionValues& values,
                                         const wire::IpAddress& destination) const {
  return AddressHandle{.destination = destination,
                       .flow_label = values.flow_label,
                       .source_gid_index = id.device ? id.device->gid_index : std::uint8_t{0},
                       .hop_limit = values.hop_limit,
                       .traffic_class = id.type_of_service != 0 ? id.type_of_service
                                                                : values.traffic_class};
}

// The membership itself is the queue pair's: its engine joins the group when the program attaches
// the QP. What is to be told here is how the group is named.
Result<std::uint32_t> Manager::join_multicast(IdHandle handle, const SocketAddress& group,
                                              bool sends_only) {
  static constexpr std::size_t kMaxGroups = 256;  // Of one id.
  Id* id = ISTHMUS_TRY(in_state(
      handle, {IdState::kBound, IdState::kAddressResolved, IdState::kRouteResolved}, "join"));
  if (!id->device || !group.ip.is_multicast()) {
    return fail(ErrorCode::kInvalid, "join: needs a bound id and the address of a group");
  }
  if (id->multicasts.size() >= kMaxGroups) {
    return fail(ErrorCode::kNoMemory, "join: an id has %zu groups at most", kMaxGroups);
  }
  const std::uint32_t multicast = next_multicast_++;
  id->multicasts[multicast] = Multicast{group.ip, sends_only};
  Event& event = add_event(*id, EventType::kMulticastJoin);
  event.multicast = multicast;
  event.is_datagram = true;
  event.parameters.qpn = kMulticastQpn;
  event.parameters.qkey = kUdpQkey;
  event.address_handle = address_handle_of(*id, ConnectionValues{.hop_limit = kHopLimit}, group.ip);
  event.address_handle.dlid = kMulticastLid;
  return multicast;
}

Result<void> Manager::leave_multicast(IdHandle handle, std::uint32_t multicast) {
  Id* id = find_mutable(handle);
  if (id == nullptr || id->multicasts.erase(multicast) == 0) {
    return fail(ErrorCode::kInvalid, "leave: not joined");
  }
  std::erase_if(events_, [&](const Event& e) { return e.multicast == multicast; });
  return {};
}

void Manager::for_each(const std::function<void(const Id&, const Exchange*)>& visit) {
  for (const auto& [handle, id] : ids_) visit(*id, agent_.find(id->exchange));
}

}  // namespace isthmus::cm
