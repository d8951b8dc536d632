// Service id resolution, for unconnected services: one request, one answer with a QP number.
#include "cm/agent.h"

namespace isthmus::cm {
namespace {

wire::SidrStatus status_of(wire::RejectReason reason) {
  switch (reason) {
    case wire::RejectReason::kInvalidServiceId:
      return wire::SidrStatus::kUnsupported;
    case wire::RejectReason::kNoResources:
      return wire::SidrStatus::kNoQp;
    default:
      return wire::SidrStatus::kReject;
  }
}

}  // namespace

Result<ExchangeId> Agent::resolve(std::uint64_t now_ns, const ConnectRequest& request) {
  Exchange* exchange = table_.create();
  if (exchange == nullptr) {
    return fail(ErrorCode::kNoMemory, "connect: this host has %zu connections, its limit",
                settings_.max_exchanges);
  }
  exchange->state = ExchangeState::kResolveSent;
  exchange->role = Role::kActive;
  exchange->user = request.user;
  exchange->local = request.local;
  exchange->remote = request.remote;
  exchange->service_id = request.service_id;
  exchange->values = request.values;
  exchange->transaction_id = random_();
  send(*exchange, wire::CmSidrReq{.request_id = static_cast<std::uint32_t>(exchange->id),
                                  .service_id = request.service_id,
                                  .private_data = private_data_of<wire::CmSidrReq::kPrivateBytes>(
                                      request.private_data)});
  start_attempts(now_ns, *exchange, settings_.connect_give_up_ns);
  return exchange->id;
}

void Agent::handle(const Context& context, const wire::CmSidrReq& request) {
  if (Exchange* known = table_.find_request(context.incoming.source, request.request_id)) {
    ++counters_.duplicates;
    if (known->state == ExchangeState::kResolveAnswered) resend(*known);
    return;
  }
  std::optional<Refusal> refusal = Refusal{wire::RejectReason::kNoResources, {}};
  if (Exchange* exchange = table_.create()) {
    exchange->state = ExchangeState::kResolveReceived;
    exchange->role = Role::kPassive;
    exchange->origin = context.incoming.origin;
    exchange->local = context.incoming.destination;
    exchange->remote = context.incoming.source;
    exchange->remote_id = request.request_id;
    exchange->service_id = request.service_id;
    exchange->transaction_id = context.transaction_id;
    if (exchange->origin == Origin::kLoopback) {
      const Exchange* other_end = table_.find(static_cast<ExchangeId>(request.request_id));
      if (other_end != nullptr) exchange->neighbour = other_end->user;
    }
    refusal = listener_.on_resolve_request(*exchange, request);
    if (!refusal) {
      table_.index_request(*exchange);
      return;
    }
    table_.erase(*exchange);
  }
  ++counters_.refused;
  answer_with(context,
              wire::CmSidrRep{.request_id = request.request_id,
                              .status = status_of(refusal->reason),
                              .service_id = request.service_id,
                              .private_data = private_data_of<wire::CmSidrRep::kPrivateBytes>(
                                  std::as_bytes(std::span{refusal->text}))});
}

Result<void> Agent::answer(std::uint64_t now_ns, ExchangeId id, const ResolveAnswer& answer) {
  Exchange* exchange = table_.find(id);
  if (exchange == nullptr || exchange->state != ExchangeState::kResolveReceived) {
    return fail(ErrorCode::kInvalid, "accept: there is no request to answer");
  }
  exchange->state = ExchangeState::kResolveAnswered;
  exchange->values.local_qpn = answer.qpn;
  exchange->values.qkey = answer.qkey;
  exchange->user = 0;  // Nothing more will happen to this program's side.
  send(*exchange, wire::CmSidrRep{.request_id = exchange->remote_id,
                                  .status = answer.status,
                                  .qpn = answer.qpn,
                                  .service_id = exchange->service_id,
                                  .qkey = answer.qkey,
                                  .private_data = private_data_of<wire::CmSidrRep::kPrivateBytes>(
                                      answer.private_data)});
  exchange->give_up_ns = now_ns + settings_.answer_kept_ns;
  table_.set_deadline(*exchange, exchange->give_up_ns);
  return {};
}

void Agent::handle(const Context& context, const wire::CmSidrRep& reply) {
  Exchange* exchange = table_.find(static_cast<ExchangeId>(reply.request_id));
  if (exchange == nullptr || exchange->state != ExchangeState::kResolveSent) {
    ++counters_.unexpected;
    return;
  }
  if (!is_from_peer(context, *exchange, exchange->remote_id)) return;
  exchange->origin = context.incoming.origin;
  exchange->values.remote_qpn = reply.qpn;
  exchange->values.qkey = reply.qkey;
  listener_.on_resolve_reply(*exchange, reply);
  table_.erase(*exchange);
}

}  // namespace isthmus::cm
