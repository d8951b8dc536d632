// What the protocol tells: requests that become new ids, and the events of those there are.
#include <infiniband/verbs.h>

#include "cm/manager.h"
#include "cm/private_data.h"

namespace isthmus::cm {
namespace {

using wire::RejectReason;

std::uint8_t qp_type_of(const wire::CmReq& request) {
  switch (request.transport) {
    case wire::CmTransport::kUc:
      return IBV_QPT_UC;
    case wire::CmTransport::kExtended:
      return IBV_QPT_XRC_RECV;
    default:
      return IBV_QPT_RC;
  }
}

SocketAddress socket_address(const wire::IpAddress& ip, std::uint16_t port, bool infiniband) {
  return SocketAddress{.family = ip.is_v4() ? Family::kV4 : Family::kV6,
                       .ip = ip,
                       .port = port,
                       .infiniband = infiniband};
}

}  // namespace

struct Manager::Arrival {
  std::span<const std::byte> private_data;  // The whole field.
  std::uint8_t qp_type = 0;
  ConnectionParameters parameters;  // For the event.
};

std::optional<Refusal> Manager::on_request(Exchange& exchange, const wire::CmReq& request) {
  // Seen from our side: what the peer serves is what we may have in flight.
  const Arrival arrival{
      .private_data = request.private_data,
      .qp_type = qp_type_of(request),
      .parameters = {.qpn = request.local_qpn,
                     .responder_resources = request.initiator_depth,
                     .initiator_depth = request.responder_resources,
                     .flow_control = static_cast<std::uint8_t>(request.end_to_end_flow_control),
                     .retry_count = request.retry_count,
                     .rnr_retry_count = request.rnr_retry_count,
                     .srq = static_cast<std::uint8_t>(request.srq),
                     .qp_type = qp_type_of(request)}};
  return admit(exchange, arrival);
}

std::optional<Refusal> Manager::on_resolve_request(Exchange& exchange,
                                                   const wire::CmSidrReq& request) {
  return admit(exchange, Arrival{.private_data = request.private_data,
                                 .qp_type = IBV_QPT_UD,
                                 .parameters = {.qp_type = IBV_QPT_UD}});
}

std::optional<Refusal> Manager::admit(Exchange& exchange, const Arrival& arrival) {
  ++counters_.requests_in;
  const auto service = wire::parse_rdma_cm_service_id(exchange.service_id);
  if (!service) return Refusal{RejectReason::kInvalidServiceId, "no such service id"};
  Id* listener =
      find_mutable(ports_.listener_for(service->space, service->port, exchange.local));
  const bool is_datagram = arrival.qp_type == IBV_QPT_UD;
  if (listener == nullptr || (listener->qp_type == IBV_QPT_UD) != is_datagram) {
    return Refusal{RejectReason::kInvalidServiceId, "nobody listens"};
  }
  std::span<const std::byte> user_data = arrival.private_data;
  std::uint16_t peer_port = 0;
  if (!listener->source.infiniband) {
    // Its addresses must be those of the packet, and policy judges the packet's: only the port is
    // taken from the header.
    const auto header = wire::decode_rdma_cm_header(user_data);
    if (!header) return Refusal{RejectReason::kUnsupported, "no IP header in the private data"};
    peer_port = header->source_port;
    user_data = user_data.subspan(wire::kRdmaCmHeaderBytes);
  }
  if (listener->pending >= listener->backlog) {
    ++counters_.refused_backlog;
    return Refusal{RejectReason::kNoResources, "the listener's backlog is full"};
  }

  Id& id = make_id(listener->client, service->space, arrival.qp_type);
  id.qp_type = arrival.qp_type;
  id.role = Role::kPassive;
  id.state = IdState::kConnecting;
  id.exchange = exchange.id;
  id.source = socket_address(exchange.local, service->port, listener->source.infiniband);
  id.destination = socket_address(exchange.remote, peer_port, listener->source.infiniband);
  id.destination_known = true;
  id.device = addresses_.find(exchange.local);
  id.type_of_service = listener->type_of_service;
  id.ack_timeout = listener->ack_timeout;
  const GateAnswer answer =
      ask(GatePoint::kRequestIn, id, exchange.local, exchange.remote, &exchange);
  if (!answer.allowed || !id.device) {
    ids_.erase(id.handle);
    if (answer.allowed) return Refusal{RejectReason::kInvalidGid, "not an address of this host"};
    ++counters_.denied;
    return Refusal{RejectReason::kConsumerReject, denial_text(answer.rule)};
  }
  id.peer_access = answer.peer_access;
  id.listener = listener->handle;
  ++listener->pending;
  exchange.user = id.handle;

  Event& event = add_event(id, EventType::kConnectRequest);
  event.listener = listener->handle;
  event.parameters = arrival.parameters;
  event.address_handle = address_handle_of(id, exchange.values, exchange.remote);
  event.private_data.assign(user_data.begin(), user_data.end());
  return std::nullopt;
}

std::optional<Refusal> Manager::on_reply(Exchange& exchange, const wire::CmRep& reply) {
  Id* id = find_mutable(exchange.user);
  if (id == nullptr) return Refusal{RejectReason::kConsumerReject, "the program is gone"};
  ++counters_.replies_in;
  const GateAnswer answer =
      ask(GatePoint::kReplyIn, *id, exchange.local, exchange.remote, &exchange);
  if (!answer.allowed) {
    ++counters_.denied;
    const Refusal refusal{RejectReason::kConsumerReject, denial_text(answer.rule)};
    on_rejected(exchange, refusal.reason, std::as_bytes(std::span{refusal.text}));
    return refusal;
  }
  id->peer_access &= answer.peer_access;
  Event& event = add_event(*id, EventType::kConnectResponse);
  event.parameters = {.qpn = reply.local_qpn,
                      .responder_resources = reply.initiator_depth,
                      .initiator_depth = reply.responder_resources,
                      .flow_control = static_cast<std::uint8_t>(reply.end_to_end_flow_control),
                      .rnr_retry_count = reply.rnr_retry_count,
                      .srq = static_cast<std::uint8_t>(reply.srq),
                      .qp_type = id->qp_type};
  event.private_data.assign(reply.private_data.begin(), reply.private_data.end());
  return std::nullopt;
}

void Manager::on_resolve_reply(Exchange& exchange, const wire::CmSidrRep& reply) {
  Id* id = find_mutable(exchange.user);
  if (id == nullptr) return;
  ++counters_.replies_in;
  const GateAnswer answer =
      ask(GatePoint::kReplyIn, *id, exchange.local, exchange.remote, &exchange);
  if (!answer.allowed) {
    ++counters_.denied;
    const std::string text = denial_text(answer.rule);
    on_rejected(exchange, RejectReason::kConsumerReject, std::as_bytes(std::span{text}));
    return;
  }
  const bool success = reply.status == wire::SidrStatus::kSuccess;
  // rdma_cm says UNREACHABLE for every refusal of a datagram service, with the SIDR status.
  Event& event = add_event(*id, success ? EventType::kEstablished : EventType::kUnreachable,
                           success ? 0 : static_cast<int>(reply.status));
  event.parameters = {.qpn = reply.qpn, .qkey = reply.qkey, .qp_type = IBV_QPT_UD};
  event.address_handle = address_handle_of(*id, exchange.values, exchange.remote);
  event.private_data.assign(reply.private_data.begin(), reply.private_data.end());
  id->end_reported = !success;
  if (success) ++counters_.established;
  if (!success) id->state = IdState::kClosed;
}

void Manager::on_established(Exchange& exchange) {
  Id* id = find_mutable(exchange.user);
  if (id == nullptr) return;
  ++counters_.established;
  add_event(*id, EventType::kEstablished);
}

void Manager::on_rejected(Exchange& exchange, RejectReason reason,
                          std::span<const std::byte> private_data) {
  Id* id = find_mutable(exchange.user);
  if (id == nullptr) return;
  leave_backlog(*id);
  id->state = IdState::kClosed;
  if (id->end_reported) return;
  id->end_reported = true;
  Event& event = add_event(*id, EventType::kRejected, static_cast<int>(reason));
  event.private_data = padded(private_data, wire::CmRej::kPrivateBytes);
}

void Manager::on_unreachable(Exchange& exchange) {
  Id* id = find_mutable(exchange.user);
  if (id == nullptr) return;
  id->state = IdState::kClosed;
  if (id->end_reported) return;
  id->end_reported = true;
  add_event(*id, EventType::kUnreachable, -ETIMEDOUT);
}

void Manager::on_disconnected(Exchange& exchange) {
  Id* id = find_mutable(exchange.user);
  if (id == nullptr) return;
  id->state = IdState::kClosed;
  if (id->end_reported) return;
  id->end_reported = true;
  add_event(*id, EventType::kDisconnected);
}

void Manager::on_timewait_exit(UserHandle user) {
  if (const Id* id = find(user)) add_event(*id, EventType::kTimewaitExit);
}

}  // namespace isthmus::cm
