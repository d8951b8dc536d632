// The making of a connection: REQ, REP, RTU.
#include "cm/agent.h"

namespace isthmus::cm {
namespace {

constexpr std::uint32_t kPsnMask = 0x00ff'ffff;
constexpr std::uint8_t kSmallestMtu = 1;  // ibv_mtu: 256 bytes.
constexpr std::uint8_t kLargestMtu = 5;   // 4096 bytes.
constexpr std::uint16_t kNoLid = 0xffff;  // What Linux puts where RoCE has nothing to say.
constexpr std::uint8_t kPacketRate = 16;  // 100 Gb/s; nobody paces by it.
// How long a peer may take to acknowledge, as a code: 0.13 s, which is soft-RoCE's.
constexpr std::uint8_t kTargetAckDelay = 15;
constexpr std::uint8_t kLongestTimeCode = 31;

wire::CmReq make_request(const ConnectRequest& request, const Exchange& exchange,
                         std::uint64_t node_guid) {
  const ConnectionValues& values = exchange.values;
  return wire::CmReq{
      .local_comm_id = static_cast<std::uint32_t>(exchange.id),
      .service_id = request.service_id,
      .local_ca_guid = node_guid,
      .local_qpn = values.local_qpn,
      .responder_resources = values.responder_resources,
      .initiator_depth = values.initiator_depth,
      .remote_cm_response_timeout = kResponseTimeoutCode,
      .transport = values.transport,
      .end_to_end_flow_control = request.end_to_end_flow_control,
      .starting_psn = values.rq_psn,
      .local_cm_response_timeout = kResponseTimeoutCode,
      .retry_count = values.retry_count,
      .path_mtu = values.path_mtu,
      .rnr_retry_count = values.rnr_retry_count,
      .max_cm_retries = kMaxCmRetries,
      .srq = request.has_srq,
      .extended_transport_type = values.extended_transport,
      .primary = {.local_lid = kNoLid,
                  .remote_lid = kNoLid,
                  .local_gid = request.local,
                  .remote_gid = request.remote,
                  .flow_label = values.flow_label,
                  .packet_rate = kPacketRate,
                  .traffic_class = values.traffic_class,
                  .hop_limit = values.hop_limit,
                  .local_ack_timeout = values.ack_timeout},
      .private_data = private_data_of<wire::CmReq::kPrivateBytes>(request.private_data)};
}

// What the peer's REQ says, seen from our side: its depth is what we serve, and so on.
ConnectionValues values_of(const wire::CmReq& request, std::uint32_t rq_psn) {
  return ConnectionValues{.transport = request.transport,
                          .extended_transport = request.extended_transport_type,
                          .remote_qpn = request.local_qpn,
                          .rq_psn = rq_psn,
                          .sq_psn = request.starting_psn,
                          .initiator_depth = request.responder_resources,
                          .responder_resources = request.initiator_depth,
                          .path_mtu = request.path_mtu,
                          .retry_count = request.retry_count,
                          .rnr_retry_count = request.rnr_retry_count,
                          .ack_timeout = request.primary.local_ack_timeout,
                          .traffic_class = request.primary.traffic_class,
                          .hop_limit = request.primary.hop_limit,
                          .flow_label = request.primary.flow_label,
                          .srq = request.srq};
}

// The transport timeout for a path with this one, to a peer with that delay: the sum of two times
// whose codes are logarithms, so the larger, or one more when they are close.
std::uint8_t ack_timeout_with(std::uint8_t path_timeout, std::uint8_t target_ack_delay) {
  const unsigned larger = std::max(path_timeout, target_ack_delay);
  const unsigned smaller = std::min(path_timeout, target_ack_delay);
  const unsigned sum = larger + (smaller + 1 >= larger ? 1 : 0);
  return static_cast<std::uint8_t>(std::min<unsigned>(sum, kLongestTimeCode));
}

// How long the peer says it will take part: its response time for each of its retries.
std::uint64_t patience_of(const wire::CmReq& request) {
  return time_of_code_ns(request.local_cm_response_timeout) * (request.max_cm_retries + 1u);
}

std::optional<Refusal> check_request(const IncomingMad& incoming, const wire::CmReq& request) {
  using wire::RejectReason;
  if (request.path_mtu < kSmallestMtu || request.path_mtu > kLargestMtu) {
    return Refusal{RejectReason::kInvalidMtu, "no such path MTU"};
  }
  if (request.transport == wire::CmTransport::kRd ||
      (request.transport == wire::CmTransport::kExtended &&
       request.extended_transport_type != wire::kExtendedTransportXrc)) {
    return Refusal{RejectReason::kInvalidTransportType, "neither RC nor UC nor XRC"};
  }
  // In RoCEv2 the GIDs of a path are the IP addresses of its ends. Anything else was translated on
  // the way (and will never carry data) or is a lie.
  if (request.primary.local_gid != incoming.source ||
      request.primary.remote_gid != incoming.destination) {
    return Refusal{RejectReason::kInvalidGid, "the GIDs are not the addresses of the packet"};
  }
  return std::nullopt;
}

}  // namespace

Result<ExchangeId> Agent::connect(std::uint64_t now_ns, const ConnectRequest& request) {
  Exchange* exchange = table_.create();
  if (exchange == nullptr) {
    return fail(ErrorCode::kNoMemory, "connect: this host has %zu connections, its limit",
                settings_.max_exchanges);
  }
  exchange->state = ExchangeState::kRequestSent;
  exchange->role = Role::kActive;
  exchange->user = request.user;
  exchange->local = request.local;
  exchange->remote = request.remote;
  exchange->service_id = request.service_id;
  exchange->values = request.values;
  exchange->values.rq_psn = static_cast<std::uint32_t>(random_()) & kPsnMask;
  exchange->transaction_id = random_();
  send(*exchange, make_request(request, *exchange, node_guid_));
  start_attempts(now_ns, *exchange, settings_.connect_give_up_ns);
  return exchange->id;
}

void Agent::handle(const Context& context, const wire::CmReq& request) {
  const wire::IpAddress& peer = context.incoming.source;
  if (Exchange* known = table_.find_request(peer, request.local_comm_id)) {
    ++counters_.duplicates;
    handle_duplicate(context, *known);
    return;
  }
  if (table_.find_timewait_request(peer, request.local_comm_id) != nullptr) {
    refuse_request(context, request.local_comm_id,
                   {wire::RejectReason::kStaleConnection, "this connection is over"});
    return;
  }
  if (const std::optional<Refusal> refusal = check_request(context.incoming, request)) {
    refuse_request(context, request.local_comm_id, *refusal);
    return;
  }
  Exchange* exchange = table_.create();
  if (exchange == nullptr) {
    refuse_request(context, request.local_comm_id,
                   {wire::RejectReason::kNoResources, "too many connections on this host"});
    return;
  }
  if (const std::optional<Refusal> refusal = admit_request(context, *exchange, request)) {
    refuse_request(context, request.local_comm_id, *refusal);
    table_.erase(*exchange);
  }
}

std::optional<Refusal> Agent::admit_request(const Context& context, Exchange& exchange,
                                            const wire::CmReq& request) {
  exchange.state = ExchangeState::kRequestReceived;
  exchange.role = Role::kPassive;
  exchange.origin = context.incoming.origin;
  exchange.local = context.incoming.destination;
  exchange.remote = context.incoming.source;
  exchange.remote_id = request.local_comm_id;
  exchange.service_id = request.service_id;
  exchange.transaction_id = context.transaction_id;
  exchange.peer_patience_ns = patience_of(request);
  exchange.values = values_of(request, static_cast<std::uint32_t>(random_()) & kPsnMask);
  if (exchange.origin == Origin::kLoopback) {
    const Exchange* other_end = table_.find(static_cast<ExchangeId>(request.local_comm_id));
    if (other_end != nullptr) exchange.neighbour = other_end->user;
  }
  if (const std::optional<ExchangeId> older = table_.index_queue_pair(exchange)) {
    // The peer's queue pair starts anew, so its older connection is dead, whoever forgot it.
    Exchange* stale = table_.find(*older);
    if (stale != nullptr && stale->state == ExchangeState::kEstablished) {
      send_disconnect(context.now_ns, *stale);
    }
    return Refusal{wire::RejectReason::kStaleConnection,
                   "the queue pair has an older connection, which is being closed"};
  }
  if (const std::optional<Refusal> refusal = listener_.on_request(exchange, request)) {
    return refusal;
  }
  table_.index_request(exchange);
  return std::nullopt;
}

void Agent::handle_duplicate(const Context&, Exchange& exchange) {
  switch (exchange.state) {
    case ExchangeState::kRequestReceived:
      send_mra(exchange, wire::MraMessage::kReq);
      return;
    case ExchangeState::kReplySent:
    case ExchangeState::kRejected:
    case ExchangeState::kResolveAnswered:
      resend(exchange);
      return;
    default:  // Established or beyond: the peer has had its answer.
      return;
  }
}

void Agent::send_mra(Exchange& exchange, wire::MraMessage message) {
  send(exchange.local, exchange.remote,
       wire::CmMra{.local_comm_id = static_cast<std::uint32_t>(exchange.id),
                   .remote_comm_id = exchange.remote_id,
                   .message_mraed = message,
                   .service_timeout = kMraServiceTimeoutCode},
       exchange.transaction_id);
}

// Without an exchange: a flood of requests that nobody wants leaves nothing behind.
void Agent::refuse_request(const Context& context, std::uint32_t remote_id,
                           const Refusal& refusal) {
  ++counters_.refused;
  answer_with(context, wire::CmRej{.local_comm_id = 0,
                                   .remote_comm_id = remote_id,
                                   .message_rejected = wire::RejectedMessage::kReq,
                                   .reason = refusal.reason,
                                   .private_data = private_data_of<wire::CmRej::kPrivateBytes>(
                                       std::as_bytes(std::span{refusal.text}))});
}

Result<void> Agent::accept(std::uint64_t now_ns, ExchangeId id, const ConnectReply& reply) {
  Exchange* exchange = table_.find(id);
  if (exchange == nullptr || exchange->state != ExchangeState::kRequestReceived) {
    return fail(ErrorCode::kInvalid, "accept: there is no request to accept");
  }
  ConnectionValues& values = exchange->values;
  values.local_qpn = reply.local_qpn;
  values.responder_resources = reply.responder_resources;
  values.initiator_depth = reply.initiator_depth;
  exchange->state = ExchangeState::kReplySent;
  send(*exchange, wire::CmRep{.local_comm_id = static_cast<std::uint32_t>(exchange->id),
                              .remote_comm_id = exchange->remote_id,
                              .local_qpn = values.local_qpn,
                              .starting_psn = values.rq_psn,
                              .responder_resources = values.responder_resources,
                              .initiator_depth = values.initiator_depth,
                              .target_ack_delay = kTargetAckDelay,
                              .end_to_end_flow_control = reply.end_to_end_flow_control,
                              .rnr_retry_count = reply.rnr_retry_count,
                              .srq = reply.has_srq,
                              .local_ca_guid = node_guid_,
                              .private_data = private_data_of<wire::CmRep::kPrivateBytes>(
                                  reply.private_data)});
  start_attempts(now_ns, *exchange,
                 std::min(exchange->peer_patience_ns, settings_.connect_give_up_ns));
  return {};
}

void Agent::handle(const Context& context, const wire::CmRep& reply) {
  Exchange* exchange = table_.find(static_cast<ExchangeId>(reply.remote_comm_id));
  if (exchange == nullptr || exchange->role != Role::kActive) {
    ++counters_.unexpected;
    if (exchange != nullptr || table_.find_timewait(static_cast<ExchangeId>(reply.remote_comm_id)))
      return;
    answer_with(context, wire::CmRej{.remote_comm_id = reply.local_comm_id,
                                     .message_rejected = wire::RejectedMessage::kRep,
                                     .reason = wire::RejectReason::kInvalidCommId});
    return;
  }
  if (!is_from_peer(context, *exchange, reply.local_comm_id)) return;
  switch (exchange->state) {
    case ExchangeState::kRequestSent:
      break;
    case ExchangeState::kReplyReceived:
      ++counters_.duplicates;
      send_mra(*exchange, wire::MraMessage::kRep);
      return;
    case ExchangeState::kEstablished:
      ++counters_.duplicates;
      resend(*exchange);  // The RTU was lost.
      return;
    default:
      ++counters_.unexpected;
      return;
  }
  table_.set_deadline(*exchange, 0);
  ConnectionValues& values = exchange->values;
  exchange->remote_id = reply.local_comm_id;
  exchange->origin = context.incoming.origin;
  if (exchange->origin == Origin::kLoopback) {
    const Exchange* other_end = table_.find(static_cast<ExchangeId>(reply.local_comm_id));
    if (other_end != nullptr) exchange->neighbour = other_end->user;
  }
  exchange->state = ExchangeState::kReplyReceived;
  values.remote_qpn = reply.local_qpn;
  values.sq_psn = reply.starting_psn;
  values.initiator_depth = reply.responder_resources;
  values.responder_resources = reply.initiator_depth;
  values.rnr_retry_count = reply.rnr_retry_count;
  values.srq = reply.srq;
  values.ack_timeout = ack_timeout_with(values.ack_timeout, reply.target_ack_delay);
  std::optional<Refusal> refusal;
  if (table_.index_queue_pair(*exchange)) {
    refusal = Refusal{wire::RejectReason::kStaleConnection, "the queue pair has a connection"};
    listener_.on_rejected(*exchange, refusal->reason, std::as_bytes(std::span{refusal->text}));
  } else {
    refusal = listener_.on_reply(*exchange, reply);
  }
  if (!refusal) return;
  ++counters_.refused;
  send_reject(*exchange, wire::RejectedMessage::kRep, refusal->reason,
              std::as_bytes(std::span{refusal->text}));
  table_.release_queue_pair(*exchange);
  close(context.now_ns, *exchange);
}

Result<void> Agent::confirm(std::uint64_t, ExchangeId id) {
  Exchange* exchange = table_.find(id);
  if (exchange == nullptr || exchange->state != ExchangeState::kReplyReceived) {
    return fail(ErrorCode::kInvalid, "establish: there is no reply to confirm");
  }
  exchange->state = ExchangeState::kEstablished;
  send(*exchange, wire::CmRtu{.local_comm_id = static_cast<std::uint32_t>(exchange->id),
                              .remote_comm_id = exchange->remote_id});
  return {};
}

void Agent::handle(const Context& context, const wire::CmRtu& ready) {
  Exchange* exchange = table_.find(static_cast<ExchangeId>(ready.remote_comm_id));
  if (exchange == nullptr || exchange->role != Role::kPassive) {
    ++counters_.unexpected;
    return;
  }
  if (!is_from_peer(context, *exchange, ready.local_comm_id)) return;
  if (exchange->state != ExchangeState::kReplySent) {
    ++counters_.duplicates;
    return;
  }
  table_.set_deadline(*exchange, 0);
  exchange->state = ExchangeState::kEstablished;
  listener_.on_established(*exchange);
}

Result<void> Agent::data_arrived(std::uint64_t, ExchangeId id) {
  Exchange* exchange = table_.find(id);
  if (exchange == nullptr || (exchange->state != ExchangeState::kReplySent &&
                              exchange->state != ExchangeState::kEstablished)) {
    return fail(ErrorCode::kInvalid, "notify: no connection waits for its first data");
  }
  if (exchange->state == ExchangeState::kEstablished) return {};
  table_.set_deadline(*exchange, 0);
  exchange->state = ExchangeState::kEstablished;
  listener_.on_established(*exchange);
  return {};
}

}  // namespace isthmus::cm
