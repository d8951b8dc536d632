// Sending, timers, and the messages that concern neither the making nor the end of a connection.
#include "cm/agent.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace isthmus::cm {
namespace {

std::size_t count_index(const wire::CmMessage& message) {
  return static_cast<std::size_t>(wire::attribute_of(message)) -
         static_cast<std::size_t>(wire::CmAttribute::kReq);
}

}  // namespace

Agent::Agent(const Settings& settings, ExchangeTable::Random random, std::uint64_t node_guid,
             AgentListener& listener)
    : settings_(settings),
      random_(random),
      node_guid_(node_guid),
      listener_(listener),
      table_(settings, std::move(random)) {}

void Agent::on_mad(std::uint64_t now_ns, const IncomingMad& incoming) {
  const auto header = wire::decode_mad_header(incoming.mad);
  const auto message = wire::decode_cm(incoming.mad);
  if (!header || !message) {
    ++counters_.malformed;
    return;
  }
  ++counters_.received[count_index(*message)];
  const Context context{now_ns, incoming, header->transaction_id};
  std::visit([&](const auto& m) { handle(context, m); }, *message);
}

void Agent::on_timer(std::uint64_t now_ns) {
  // Ends: each exchange taken is erased or gets a deadline after now.
  while (Exchange* exchange = table_.take_expired(now_ns)) {
    if (now_ns >= exchange->give_up_ns) {
      give_up(now_ns, *exchange);
      continue;
    }
    resend(*exchange);
    exchange->retry_after_ns =
        std::min(2 * exchange->retry_after_ns, settings_.longest_retry_ns);
    table_.set_deadline(*exchange,
                        std::min(now_ns + exchange->retry_after_ns, exchange->give_up_ns));
  }
  while (const std::optional<Timewait> ended = table_.take_ended_timewait(now_ns)) {
    if (ended->user != 0) listener_.on_timewait_exit(ended->user);
  }
}

std::vector<OutgoingMad> Agent::take_outgoing() { return std::exchange(outgoing_, {}); }

void Agent::send(const wire::IpAddress& source, const wire::IpAddress& destination,
                 const wire::CmMessage& message, std::uint64_t transaction_id) {
  OutgoingMad& outgoing = outgoing_.emplace_back();
  outgoing.source = source;
  outgoing.destination = destination;
  wire::encode_cm(message, transaction_id, outgoing.mad);
  ++counters_.sent[count_index(message)];
}

void Agent::send(Exchange& exchange, const wire::CmMessage& message) {
  send(exchange.local, exchange.remote, message, exchange.transaction_id);
  exchange.message = outgoing_.back().mad;
}

void Agent::resend(const Exchange& exchange) {
  outgoing_.push_back(OutgoingMad{exchange.local, exchange.remote, exchange.message});
  ++counters_.resent;
}

void Agent::answer_with(const Context& context, const wire::CmMessage& message) {
  send(context.incoming.destination, context.incoming.source, message, context.transaction_id);
}

void Agent::start_attempts(std::uint64_t now_ns, Exchange& exchange, std::uint64_t patience_ns) {
  exchange.first_sent_ns = now_ns;
  exchange.give_up_ns = now_ns + patience_ns;
  exchange.retry_after_ns = settings_.first_retry_ns;
  table_.set_deadline(exchange, std::min(now_ns + exchange.retry_after_ns, exchange.give_up_ns));
}

void Agent::give_up(std::uint64_t now_ns, Exchange& exchange) {
  switch (exchange.state) {
    case ExchangeState::kRequestSent:
      // The peer may have the request and wait for its program: let it forget.
      send_reject(exchange, wire::RejectedMessage::kReq, wire::RejectReason::kTimeout, {});
      listener_.on_unreachable(exchange);
      table_.erase(exchange);
      return;
    case ExchangeState::kReplySent:
      send_reject(exchange, wire::RejectedMessage::kRep, wire::RejectReason::kTimeout, {});
      listener_.on_unreachable(exchange);
      close(now_ns, exchange);
      return;
    case ExchangeState::kDisconnectSent:
      listener_.on_disconnected(exchange);
      close(now_ns, exchange);
      return;
    case ExchangeState::kResolveSent:
      listener_.on_unreachable(exchange);
      table_.erase(exchange);
      return;
    case ExchangeState::kRejected:
    case ExchangeState::kResolveAnswered:
      table_.erase(exchange);
      return;
    case ExchangeState::kNew:
    case ExchangeState::kReplyReceived:
    case ExchangeState::kRequestReceived:
    case ExchangeState::kEstablished:
    case ExchangeState::kResolveReceived:
      break;
  }
  ISTHMUS_ASSERT(!"a state that waits for its program has no timer");
}

void Agent::close(std::uint64_t now_ns, Exchange& exchange) {
  table_.retire(exchange, now_ns + settings_.timewait_ns);
}

bool Agent::is_from_peer(const Context& context, const Exchange& exchange,
                         std::uint32_t remote_id) {
  const bool ours = context.incoming.source == exchange.remote &&
                    context.incoming.destination == exchange.local &&
                    (exchange.remote_id == 0 || exchange.remote_id == remote_id);
  if (!ours) ++counters_.wrong_source;
  return ours;
}

// "I have your message, my program needs time." The attempts go on, as a lost answer would
// otherwise only be noticed when all the patience is used up; but they do not give up before.
void Agent::handle(const Context& context, const wire::CmMra& mra) {
  Exchange* exchange = table_.find(static_cast<ExchangeId>(mra.remote_comm_id));
  if (exchange == nullptr) {
    ++counters_.unexpected;
    return;
  }
  if (!is_from_peer(context, *exchange, mra.local_comm_id)) return;
  const bool of_request = exchange->state == ExchangeState::kRequestSent &&
                          mra.message_mraed == wire::MraMessage::kReq;
  const bool of_reply = exchange->state == ExchangeState::kReplySent &&
                        mra.message_mraed == wire::MraMessage::kRep;
  if (!of_request && !of_reply) {
    ++counters_.unexpected;
    return;
  }
  const std::uint64_t asked_ns = context.now_ns + time_of_code_ns(mra.service_timeout);
  const std::uint64_t latest_ns = exchange->first_sent_ns + settings_.max_patience_ns;
  exchange->give_up_ns = std::max(exchange->give_up_ns, std::min(asked_ns, latest_ns));
}

// There is one path to a RoCE host as far as we are concerned.
void Agent::handle(const Context& context, const wire::CmLap& lap) {
  const Exchange* exchange = table_.find(static_cast<ExchangeId>(lap.remote_comm_id));
  if (exchange != nullptr && !is_from_peer(context, *exchange, lap.local_comm_id)) return;
  answer_with(context, wire::CmApr{.local_comm_id = lap.remote_comm_id,
                                   .remote_comm_id = lap.local_comm_id,
                                   .status = exchange ? wire::AprStatus::kUnsupported
                                                      : wire::AprStatus::kInvalidCommId});
}

// We send no LAP, so no APR is an answer to anything.
void Agent::handle(const Context&, const wire::CmApr&) { ++counters_.unexpected; }

Result<void> Agent::restore(const Exchange& established) {
  Exchange* exchange = table_.create_with(established.id);
  if (exchange == nullptr) {
    return fail(ErrorCode::kExists, "restoring a connection: id %08x is taken",
                static_cast<unsigned>(established.id));
  }
  *exchange = established;
  exchange->state = ExchangeState::kEstablished;
  exchange->deadline_ns = 0;
  if (table_.index_queue_pair(*exchange)) {
    table_.erase(*exchange);
    return fail(ErrorCode::kExists, "restoring a connection: the peer's queue pair %u has another",
                established.values.remote_qpn);
  }
  if (exchange->role == Role::kPassive) table_.index_request(*exchange);
  return {};
}

}  // namespace isthmus::cm
