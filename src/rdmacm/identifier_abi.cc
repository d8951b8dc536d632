// Making ids, giving them addresses, listening: the functions of rdma_cma.h before a connection.

#include <arpa/inet.h>

#include <cstdlib>
#include <cstring>

#include "rdmacm/endpoint.h"
#include "rdmacm/failure.h"
#include "rdmacm/outcome.h"
#include "rdmacm/session.h"

namespace isthmus::rdmacm {

bool is_port_space(int number) {
  return number == RDMA_PS_IPOIB || number == RDMA_PS_TCP || number == RDMA_PS_UDP ||
         number == RDMA_PS_IB;
}

Result<attach::CmAddress> address_of(const sockaddr* address) {
  if (address == nullptr) return attach::CmAddress{};
  std::size_t bytes = 0;
  switch (address->sa_family) {
    case AF_INET: bytes = sizeof(sockaddr_in); break;
    case AF_INET6: bytes = sizeof(sockaddr_in6); break;
    case kFamilyIb: bytes = 48; break;  // sockaddr_ib.
    default: return fail(ErrorCode::kInvalid, "no address of a family we know");
  }
  return attach::cm_address_of(address, bytes);
}

Result<void> complete(Identifier& identifier) {
  if (!identifier.synchronous) return {};
  if (identifier.event != nullptr) {
    rdma_ack_cm_event(identifier.event);
    identifier.event = nullptr;
  }
  identifier.event =
      ISTHMUS_TRY(identifier.session->next_event(Channel::of(identifier.channel)));
  const int status = identifier.event->status;
  if (status == 0) return {};
  if (identifier.event->event == RDMA_CM_EVENT_REJECTED) {
    return fail_with(ECONNREFUSED, "connect");
  }
  return fail_with(status < 0 ? -status : status, rdma_event_str(identifier.event->event));
}

Result<void> bind_address(Identifier& identifier, const attach::CmAddress& address) {
  attach::CmBindAddress request;
  request.address = address;
  const auto reply = ISTHMUS_TRY(identifier.session->call<attach::CmRouteReply>(
      identifier, attach::CmCommand::kBindAddress, request));
  return apply_route(identifier, reply.route);
}

Result<void> resolve_address(Identifier& identifier, const attach::CmAddress& source,
                             const attach::CmAddress& destination, int timeout_ms) {
  attach::CmResolveAddress request;
  request.source = source;
  request.destination = destination;
  request.timeout_ms = timeout_ms < 0 ? 0 : static_cast<std::uint32_t>(timeout_ms);
  const Stage before = identifier.stage.exchange(Stage::kResolvingAddress);
  const auto reply = identifier.session->call<attach::CmRouteReply>(
      identifier, attach::CmCommand::kResolveAddress, request);
  if (!reply) {
    identifier.stage = before;
    return std::unexpected(reply.error());
  }
  attach::write_sockaddr(destination, &identifier.route.addr.dst_addr);
  return complete(identifier);
}

Result<void> resolve_route(Identifier& identifier, int timeout_ms) {
  if (identifier.verbs == nullptr) return fail(ErrorCode::kInvalid, "the address comes first");
  attach::CmResolveRoute request;
  request.timeout_ms = timeout_ms < 0 ? 0 : static_cast<std::uint32_t>(timeout_ms);
  identifier.stage = Stage::kResolvingRoute;
  const auto reply = identifier.session->call<attach::CmRouteReply>(
      identifier, attach::CmCommand::kResolveRoute, request);
  if (!reply) {
    identifier.stage = Stage::kResolved;
    return std::unexpected(reply.error());
  }
  return complete(identifier);
}

Result<void> start_listening(Identifier& identifier, int backlog) {
  attach::CmListen request;
  request.backlog = backlog;
  const auto reply = ISTHMUS_TRY(identifier.session->call<attach::CmRouteReply>(
      identifier, attach::CmCommand::kListen, request));
  identifier.backlog = backlog;
  identifier.stage = Stage::kListening;
  return apply_route(identifier, reply.route);
}

Result<void> set_option(Identifier& identifier, int level, int name,
                        std::span<const std::byte> value) {
  attach::CmSetOption request;
  if (value.size() > request.value.size()) return fail(ErrorCode::kInvalid, "option too long");
  request.level = static_cast<std::uint32_t>(level);
  request.name = static_cast<std::uint32_t>(name);
  request.value_bytes = static_cast<std::uint32_t>(value.size());
  if (!value.empty()) std::memcpy(request.value.data(), value.data(), value.size());
  const auto reply = identifier.session->call<attach::CmPlainReply>(
      identifier, attach::CmCommand::kSetOption, request);
  if (!reply) return std::unexpected(reply.error());
  return {};
}

}  // namespace isthmus::rdmacm

using namespace isthmus::rdmacm;

int rdma_create_id(rdma_event_channel* channel, rdma_cm_id** id, void* context,
                   rdma_port_space port_space) {
  if (id == nullptr || !is_port_space(static_cast<int>(port_space))) return failed(EINVAL);
  const bool datagram = port_space == RDMA_PS_IPOIB || port_space == RDMA_PS_UDP;
  const auto made = Session::current().create_identifier(
      {.channel = channel,
       .context = context,
       .port_space = port_space,
       .qp_type = datagram ? IBV_QPT_UD : IBV_QPT_RC});
  if (!made) return failed(made.error());
  *id = *made;
  return 0;
}

int rdma_destroy_id(rdma_cm_id* id) {
  const auto identifier = Session::own(id);
  // A child's copy of its parent's id: nothing here to take down.
  if (!identifier) return id == nullptr ? failed(EINVAL) : 0;
  if (id->event != nullptr) rdma_ack_cm_event(id->event);
  id->event = nullptr;
  (*identifier)->session->destroy_identifier(*identifier);
  return 0;
}

int rdma_bind_addr(rdma_cm_id* id, sockaddr* address) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  if (address == nullptr) return failed(EINVAL);
  const auto wanted = address_of(address);
  if (!wanted) return failed(wanted.error());
  return outcome(bind_address(**identifier, *wanted));
}

int rdma_resolve_addr(rdma_cm_id* id, sockaddr* source, sockaddr* destination, int timeout_ms) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  if (destination == nullptr) return failed(EINVAL);
  const auto from = address_of(source);
  const auto to = address_of(destination);
  if (!from || !to) return failed(EINVAL);
  return outcome(resolve_address(**identifier, *from, *to, timeout_ms));
}

int rdma_resolve_route(rdma_cm_id* id, int timeout_ms) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  return outcome(resolve_route(**identifier, timeout_ms));
}

int rdma_listen(rdma_cm_id* id, int backlog) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  return outcome(start_listening(**identifier, backlog));
}

int rdma_migrate_id(rdma_cm_id* id, rdma_event_channel* channel) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  if ((*identifier)->synchronous && channel == nullptr) return failed(EINVAL);
  if ((*identifier)->synchronous && id->event != nullptr) {
    rdma_ack_cm_event(id->event);
    id->event = nullptr;
  }
  return outcome((*identifier)->session->migrate(**identifier, channel));
}

int rdma_set_option(rdma_cm_id* id, int level, int name, void* value, size_t bytes) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  if (value == nullptr && bytes != 0) return failed(EINVAL);
  // SAFETY: the caller's own bytes, borrowed until return.
  return outcome(
      set_option(**identifier, level, name, {static_cast<const std::byte*>(value), bytes}));
}

namespace {

__be16 port_of(const sockaddr& address) {
  const auto known = address_of(&address);
  return known ? htons(known->port) : 0;
}

}  // namespace

__be16 rdma_get_src_port(rdma_cm_id* id) { return port_of(id->route.addr.src_addr); }

__be16 rdma_get_dst_port(rdma_cm_id* id) { return port_of(id->route.addr.dst_addr); }

ibv_context** rdma_get_devices(int* count) {
  const auto contexts = Session::current().devices().open_all();
  if (count != nullptr) *count = contexts ? static_cast<int>(contexts->size()) : 0;
  if (!contexts) {
    failed(contexts.error());
    return nullptr;
  }
  auto** const list =
      static_cast<ibv_context**>(std::calloc(contexts->size() + 1, sizeof(ibv_context*)));
  if (list == nullptr) return nullptr;
  std::copy(contexts->begin(), contexts->end(), list);
  return list;
}

void rdma_free_devices(ibv_context** list) { std::free(list); }

int rdma_set_local_ece(rdma_cm_id* id, ibv_ece* ece) {
  const auto identifier = Session::own(id);
  if (!identifier || id->qp != nullptr || ece == nullptr || ece->vendor_id == 0 ||
      ece->comp_mask != 0) {
    return failed(EINVAL);
  }
  (*identifier)->local_ece.vendor_id = ece->vendor_id;
  (*identifier)->local_ece.options = ece->options;
  return 0;
}

int rdma_get_remote_ece(rdma_cm_id* id, ibv_ece* ece) {
  const auto identifier = Session::own(id);
  if (!identifier || id->qp != nullptr || ece == nullptr) return failed(EINVAL);
  *ece = (*identifier)->remote_ece;
  ece->comp_mask = 0;
  return 0;
}
