// Connecting, accepting, ending; and the values for the queue pair.
#include <infiniband/verbs.h>

#include "cm/manager.h"
#include "cm/private_data.h"

namespace isthmus::cm {
namespace {

// The wait that a receiver of ours asks for when it has no buffer posted: 1.28 ms. Code 0, which
// rdma_cm of Linux leaves there, is 655 ms, half a second of standstill for one late post.
constexpr std::uint8_t kMinRnrTimer = 14;
constexpr std::uint8_t kThreeBits = 7;

std::uint8_t three_bits(std::uint8_t value) { return std::min(value, kThreeBits); }

wire::CmTransport transport_of(std::uint8_t qp_type) {
  switch (qp_type) {
    case IBV_QPT_UC:
      return wire::CmTransport::kUc;
    case IBV_QPT_XRC_SEND:
    case IBV_QPT_XRC_RECV:
      return wire::CmTransport::kExtended;
    default:
      return wire::CmTransport::kRc;
  }
}

ConnectionValues values_of(const Id& id, const Settings& settings) {
  const wire::CmTransport transport = transport_of(id.qp_type);
  const bool extended = transport == wire::CmTransport::kExtended;
  const auto ack_timeout = static_cast<std::uint8_t>(settings.packet_life_time_code + 1);
  return ConnectionValues{
      .transport = transport,
      .extended_transport = extended ? wire::kExtendedTransportXrc : std::uint8_t{0},
      .local_qpn = id.parameters.qpn,
      .initiator_depth = id.parameters.initiator_depth,
      .responder_resources = id.parameters.responder_resources,
      .path_mtu = id.device->mtu,
      .retry_count = three_bits(id.parameters.retry_count),
      .rnr_retry_count = three_bits(id.parameters.rnr_retry_count),
      .ack_timeout = id.ack_timeout.value_or(ack_timeout),
      .traffic_class = id.type_of_service};
}

std::uint32_t rtr_mask(std::uint8_t qp_type) {
  const std::uint32_t mask = IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
  const bool responds = qp_type == IBV_QPT_RC || qp_type == IBV_QPT_XRC_RECV;
  return responds ? mask | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER : mask;
}

std::uint32_t rts_mask(std::uint8_t qp_type) {
  switch (qp_type) {
    case IBV_QPT_RC:
    case IBV_QPT_XRC_SEND:
      return IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
             IBV_QP_MAX_QP_RD_ATOMIC;
    case IBV_QPT_XRC_RECV:
      return IBV_QP_SQ_PSN | IBV_QP_TIMEOUT;
    default:
      return IBV_QP_SQ_PSN;
  }
}

// What the program's private data may be long, behind the IP header where there is one.
std::size_t user_bytes(const Id& id) {
  const std::size_t field =
      id.qp_type == IBV_QPT_UD ? wire::CmSidrReq::kPrivateBytes : wire::CmReq::kPrivateBytes;
  return id.source.infiniband ? field : field - wire::kRdmaCmHeaderBytes;
}

std::vector<std::byte> request_private_data(const Id& id, std::span<const std::byte> user_data) {
  std::vector<std::byte> field;
  if (!id.source.infiniband) {
    field.resize(wire::kRdmaCmHeaderBytes);
    wire::encode(wire::RdmaCmHeader{.source_port = id.source.port,
                                    .source = id.source.ip,
                                    .destination = id.destination.ip},
                 field.data());
  }
  field.insert(field.end(), user_data.begin(), user_data.end());
  return field;
}

Result<void> check_private_data(std::size_t bytes, std::size_t limit, const char* what) {
  if (bytes <= limit) return {};
  return fail(ErrorCode::kInvalid, "%s: %zu bytes of private data, the limit is %zu", what, bytes,
              limit);
}

}  // namespace

Result<void> Manager::connect(std::uint64_t now_ns, IdHandle handle,
                              const ConnectionParameters& parameters,
                              std::span<const std::byte> private_data) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kRouteResolved}, "connect"));
  ISTHMUS_TRY_VOID(check_private_data(private_data.size(), user_bytes(*id), "connect"));
  if (parameters.qp_type != 0) id->qp_type = parameters.qp_type;
  id->parameters = parameters;
  id->role = Role::kActive;

  const GateAnswer answer =
      ask(GatePoint::kRequestOut, *id, id->source.ip, id->destination.ip, nullptr);
  ++counters_.requests_out;
  if (!answer.allowed) {
    ++counters_.denied;
    const std::string text = denial_text(answer.rule);
    Event& event = add_event(*id, EventType::kRejected,
                             static_cast<int>(wire::RejectReason::kConsumerReject));
    event.private_data = padded(std::as_bytes(std::span{text}), wire::CmRej::kPrivateBytes);
    id->state = IdState::kClosed;
    id->end_reported = true;
    return {};
  }
  const std::vector<std::byte> field = request_private_data(*id, private_data);
  ConnectRequest request{.user = handle,
                         .local = id->source.ip,
                         .remote = id->destination.ip,
                         .service_id = wire::rdma_cm_service_id(id->space, id->destination.port),
                         .values = values_of(*id, settings_),
                         .end_to_end_flow_control = parameters.flow_control != 0,
                         .has_srq = parameters.srq != 0,
                         .private_data = field};
  id->exchange = id->qp_type == IBV_QPT_UD ? ISTHMUS_TRY(agent_.resolve(now_ns, request))
                                          : ISTHMUS_TRY(agent_.connect(now_ns, request));
  id->peer_access = answer.peer_access;
  id->state = IdState::kConnecting;
  return {};
}

Result<void> Manager::accept(std::uint64_t now_ns, IdHandle handle,
                             const ConnectionParameters& parameters,
                             std::span<const std::byte> private_data) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kConnecting}, "accept"));
  if (id->role == Role::kActive) return establish(now_ns, handle);
  const bool is_datagram = id->qp_type == IBV_QPT_UD;
  ISTHMUS_TRY_VOID(check_private_data(
      private_data.size(),
      is_datagram ? wire::CmSidrRep::kPrivateBytes : wire::CmRep::kPrivateBytes, "accept"));
  const Exchange* exchange = agent_.find(id->exchange);
  if (exchange == nullptr) return fail(ErrorCode::kInvalid, "accept: the request is gone");

  const GateAnswer answer =
      ask(GatePoint::kReplyOut, *id, exchange->local, exchange->remote, exchange);
  if (!answer.allowed) {
    ++counters_.denied;
    const std::string text = denial_text(answer.rule);
    ISTHMUS_TRY_VOID(reject(now_ns, handle, wire::RejectReason::kConsumerReject,
                            std::as_bytes(std::span{text})));
    return fail(ErrorCode::kDenied, "accept: %s", text.c_str());
  }
  id->parameters = parameters;
  id->peer_access &= answer.peer_access;
  if (is_datagram) {
    ISTHMUS_TRY_VOID(agent_.answer(
        now_ns, id->exchange,
        ResolveAnswer{.qpn = parameters.qpn,
                      .qkey = parameters.qkey != 0 ? parameters.qkey : kUdpQkey,
                      .private_data = private_data}));
  } else {
    const ConnectReply reply{.local_qpn = parameters.qpn,
                             .responder_resources = parameters.responder_resources,
                             .initiator_depth = parameters.initiator_depth,
                             .rnr_retry_count = three_bits(parameters.rnr_retry_count),
                             .end_to_end_flow_control = parameters.flow_control != 0,
                             .has_srq = parameters.srq != 0,
                             .private_data = private_data};
    ISTHMUS_TRY_VOID(agent_.accept(now_ns, id->exchange, reply));
  }
  ++counters_.replies_out;
  leave_backlog(*id);
  return {};
}

Result<void> Manager::reject(std::uint64_t now_ns, IdHandle handle, wire::RejectReason reason,
                             std::span<const std::byte> private_data) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kConnecting}, "reject"));
  ISTHMUS_TRY_VOID(check_private_data(private_data.size(), wire::CmRej::kPrivateBytes, "reject"));
  if (id->qp_type == IBV_QPT_UD) {
    ISTHMUS_TRY_VOID(agent_.answer(
        now_ns, id->exchange,
        ResolveAnswer{.status = wire::SidrStatus::kReject, .private_data = private_data}));
  } else {
    ISTHMUS_TRY_VOID(agent_.reject(now_ns, id->exchange, reason, private_data));
  }
  leave_backlog(*id);
  id->state = IdState::kClosed;
  id->end_reported = true;
  return {};
}

// A connection that is over already, or that the peer is ending, is what the program asked for.
Result<void> Manager::disconnect(std::uint64_t now_ns, IdHandle handle) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kConnecting, IdState::kClosed}, "disconnect"));
  const Exchange* exchange = agent_.find(id->exchange);
  if (exchange == nullptr) return {};
  switch (exchange->state) {
    case ExchangeState::kEstablished:
    case ExchangeState::kReplySent:
      return agent_.disconnect(now_ns, id->exchange);
    case ExchangeState::kReplyReceived:
      id->state = IdState::kClosed;
      return agent_.reject(now_ns, id->exchange, wire::RejectReason::kConsumerReject, {});
    case ExchangeState::kDisconnectSent:
      return {};
    default:
      return fail(ErrorCode::kInvalid, "disconnect: not connected");
  }
}

Result<void> Manager::establish(std::uint64_t now_ns, IdHandle handle) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kConnecting}, "establish"));
  ISTHMUS_TRY_VOID(agent_.confirm(now_ns, id->exchange));
  ++counters_.established;
  return {};
}

Result<void> Manager::data_arrived(std::uint64_t now_ns, IdHandle handle) {
  Id* id = ISTHMUS_TRY(in_state(handle, {IdState::kConnecting}, "notify"));
  return agent_.data_arrived(now_ns, id->exchange);
}

Result<QpAttributes> Manager::qp_attributes(IdHandle handle, std::uint32_t state) const {
  const Id* id = find(handle);
  if (id == nullptr || !id->device) {
    return fail(ErrorCode::kInvalid, "init_qp_attr: the id is bound to no device");
  }
  if (state != IBV_QPS_INIT && state != IBV_QPS_RTR && state != IBV_QPS_RTS) {
    return fail(ErrorCode::kInvalid, "init_qp_attr: only INIT, RTR and RTS come from the id");
  }
  QpAttributes attributes;
  attributes.mask = IBV_QP_STATE;
  if (id->qp_type == IBV_QPT_UD) {
    attributes.qkey = kUdpQkey;
    if (state == IBV_QPS_INIT) attributes.mask |= IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY;
    if (state == IBV_QPS_RTS) attributes.mask |= IBV_QP_SQ_PSN;
    return attributes;
  }
  const Exchange* exchange = const_cast<Manager*>(this)->agent_.find(id->exchange);
  if (exchange != nullptr) {
    attributes.values = exchange->values;
    attributes.address_handle = address_handle_of(*id, exchange->values, exchange->remote);
    attributes.local_id = exchange->id;
    attributes.remote_id = exchange->remote_id;
    if (id->ack_timeout) attributes.values.ack_timeout = *id->ack_timeout;
    attributes.access_flags = IBV_ACCESS_REMOTE_WRITE;
    if (exchange->values.responder_resources != 0) {
      attributes.access_flags |= IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
    }
    attributes.access_flags &= id->peer_access;
  }
  if (state == IBV_QPS_INIT) {
    attributes.mask |= IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
    return attributes;
  }
  if (exchange == nullptr && id->state == IdState::kClosed) {
    return fail(ErrorCode::kInvalid, "init_qp_attr: the peer has given up, or it is over");
  }
  if (exchange == nullptr || exchange->values.remote_qpn == 0) {
    return fail(ErrorCode::kInvalid, "init_qp_attr: the peer's queue pair is not known yet");
  }
  attributes.min_rnr_timer = kMinRnrTimer;
  attributes.mask |= state == IBV_QPS_RTR ? rtr_mask(id->qp_type) : rts_mask(id->qp_type);
  return attributes;
}

Result<IdHandle> Manager::restore(ClientId client, wire::PortSpace space,
                                  const SocketAddress& source, const SocketAddress& destination,
                                  const Exchange& established) {
  const std::optional<LocalAddress> device = addresses_.find(established.local);
  if (!device) {
    return fail(ErrorCode::kAddressNotAvailable, "restore: %s is no address of this host",
                established.local.to_string().c_str());
  }
  Id& id = make_id(client, space, IBV_QPT_RC);
  id.source = source;
  id.destination = destination;
  id.destination_known = true;
  id.device = device;
  id.role = established.role;
  id.state = IdState::kConnecting;
  id.parameters.qpn = established.values.local_qpn;
  const IdHandle handle = id.handle;
  const GateAnswer answer = ask_both(id, established);
  if (!answer.allowed) {
    ++counters_.denied;
    ids_.erase(handle);
    return fail(ErrorCode::kDenied, "restore: %s", denial_text(answer.rule).c_str());
  }
  Exchange exchange = established;
  exchange.user = handle;
  if (Result<void> restored = agent_.restore(exchange); !restored) {
    ids_.erase(handle);
    return std::unexpected(restored.error());
  }
  id.exchange = exchange.id;
  id.peer_access = answer.peer_access;
  return handle;
}

}  // namespace isthmus::cm
