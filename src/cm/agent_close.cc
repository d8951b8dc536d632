// The end of a connection: REJ before it is established, DREQ and DREP after.
#include "cm/agent.h"

namespace isthmus::cm {

void Agent::send_reject(Exchange& exchange, wire::RejectedMessage message,
                        wire::RejectReason reason, std::span<const std::byte> private_data) {
  send(exchange, wire::CmRej{.local_comm_id = static_cast<std::uint32_t>(exchange.id),
                             .remote_comm_id = exchange.remote_id,
                             .message_rejected = message,
                             .reason = reason,
                             .private_data = private_data_of<wire::CmRej::kPrivateBytes>(
                                 private_data)});
}

Result<void> Agent::reject(std::uint64_t now_ns, ExchangeId id, wire::RejectReason reason,
                           std::span<const std::byte> private_data) {
  Exchange* exchange = table_.find(id);
  if (exchange != nullptr && exchange->state == ExchangeState::kRequestReceived) {
    send_reject(*exchange, wire::RejectedMessage::kReq, reason, private_data);
    table_.release_queue_pair(*exchange);
    exchange->state = ExchangeState::kRejected;
    exchange->user = 0;
    // Not attempts: an answer that is repeated when asked, and then forgotten.
    exchange->give_up_ns = now_ns + settings_.answer_kept_ns;
    table_.set_deadline(*exchange, exchange->give_up_ns);
    return {};
  }
  if (exchange != nullptr && exchange->state == ExchangeState::kReplyReceived) {
    send_reject(*exchange, wire::RejectedMessage::kRep, reason, private_data);
    table_.release_queue_pair(*exchange);
    close(now_ns, *exchange);
    return {};
  }
  return fail(ErrorCode::kInvalid, "reject: there is neither a request nor a reply to reject");
}

void Agent::handle(const Context& context, const wire::CmRej& reject) {
  Exchange* exchange = table_.find(static_cast<ExchangeId>(reject.remote_comm_id));
  if (exchange == nullptr && reject.remote_comm_id == 0 &&
      reject.reason == wire::RejectReason::kTimeout) {
    // The peer gave up before it learned our id: find the exchange by the peer's.
    exchange = table_.find_request(context.incoming.source, reject.local_comm_id);
  }
  if (exchange == nullptr) {
    ++counters_.unexpected;
    return;
  }
  // A refusal need not name an exchange on its side; then it has none.
  const std::uint32_t remote_id =
      reject.local_comm_id == 0 ? exchange->remote_id : reject.local_comm_id;
  if (!is_from_peer(context, *exchange, remote_id)) return;
  switch (exchange->state) {
    case ExchangeState::kRequestSent:
    case ExchangeState::kRequestReceived:
      listener_.on_rejected(*exchange, reject.reason, reject.private_data);
      table_.erase(*exchange);
      return;
    case ExchangeState::kReplySent:
    case ExchangeState::kReplyReceived:
      listener_.on_rejected(*exchange, reject.reason, reject.private_data);
      table_.release_queue_pair(*exchange);
      close(context.now_ns, *exchange);
      return;
    case ExchangeState::kEstablished:
    case ExchangeState::kDisconnectSent:
      listener_.on_disconnected(*exchange);
      close(context.now_ns, *exchange);
      return;
    default:
      ++counters_.unexpected;
      return;
  }
}

void Agent::send_disconnect(std::uint64_t now_ns, Exchange& exchange) {
  exchange.state = ExchangeState::kDisconnectSent;
  exchange.transaction_id = random_();
  send(exchange, wire::CmDreq{.local_comm_id = static_cast<std::uint32_t>(exchange.id),
                              .remote_comm_id = exchange.remote_id,
                              .remote_qpn = exchange.values.remote_qpn});
  start_attempts(now_ns, exchange, settings_.disconnect_give_up_ns);
}

Result<void> Agent::disconnect(std::uint64_t now_ns, ExchangeId id) {
  Exchange* exchange = table_.find(id);
  if (exchange != nullptr && (exchange->state == ExchangeState::kEstablished ||
                              exchange->state == ExchangeState::kReplySent)) {
    send_disconnect(now_ns, *exchange);
    return {};
  }
  return fail(ErrorCode::kInvalid, "disconnect: there is no connection");
}

void Agent::handle(const Context& context, const wire::CmDreq& request) {
  Exchange* exchange = table_.find(static_cast<ExchangeId>(request.remote_comm_id));
  if (exchange == nullptr) {
    // Answered from timewait (our DREP was lost) and from no knowledge at all (we were restarted):
    // the peer wants to be rid of the connection, and here it is gone.
    ++counters_.duplicates;
    answer_with(context, wire::CmDrep{.local_comm_id = request.remote_comm_id,
                                      .remote_comm_id = request.local_comm_id});
    return;
  }
  if (!is_from_peer(context, *exchange, request.local_comm_id)) return;
  if (request.remote_qpn != exchange->values.local_qpn) {
    ++counters_.unexpected;
    return;
  }
  switch (exchange->state) {
    case ExchangeState::kReplySent:  // The RTU was lost, and the peer is already done.
    case ExchangeState::kReplyReceived:
    case ExchangeState::kEstablished:
    case ExchangeState::kDisconnectSent:  // Both at once.
      answer_with(context, wire::CmDrep{.local_comm_id = static_cast<std::uint32_t>(exchange->id),
                                        .remote_comm_id = exchange->remote_id});
      listener_.on_disconnected(*exchange);
      close(context.now_ns, *exchange);
      return;
    default:
      ++counters_.unexpected;
      return;
  }
}

void Agent::handle(const Context& context, const wire::CmDrep& reply) {
  Exchange* exchange = table_.find(static_cast<ExchangeId>(reply.remote_comm_id));
  if (exchange == nullptr || exchange->state != ExchangeState::kDisconnectSent) {
    ++counters_.unexpected;
    return;
  }
  if (!is_from_peer(context, *exchange, reply.local_comm_id)) return;
  listener_.on_disconnected(*exchange);
  close(context.now_ns, *exchange);
}

void Agent::abandon(std::uint64_t now_ns, ExchangeId id) {
  Exchange* exchange = table_.find(id);
  if (exchange == nullptr) {
    table_.forget_user_of_timewait(id);
    return;
  }
  exchange->user = 0;
  switch (exchange->state) {
    case ExchangeState::kRequestSent:
      send_reject(*exchange, wire::RejectedMessage::kReq, wire::RejectReason::kTimeout, {});
      table_.erase(*exchange);
      return;
    case ExchangeState::kRequestReceived:
    case ExchangeState::kReplyReceived:
      (void)reject(now_ns, id, wire::RejectReason::kConsumerReject, {});
      return;
    case ExchangeState::kReplySent:
    case ExchangeState::kEstablished:
      send_disconnect(now_ns, *exchange);
      return;
    case ExchangeState::kResolveReceived:
      (void)answer(now_ns, id, ResolveAnswer{.status = wire::SidrStatus::kReject});
      return;
    case ExchangeState::kResolveSent:
      table_.erase(*exchange);
      return;
    case ExchangeState::kNew:
    case ExchangeState::kDisconnectSent:   // Goes on until the peer knows.
    case ExchangeState::kRejected:
    case ExchangeState::kResolveAnswered:  // Kept for duplicates.
      return;
  }
}

}  // namespace isthmus::cm
