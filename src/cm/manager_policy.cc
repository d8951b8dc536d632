// Policy: the questions at the gate, the grants for queue pairs, and revocation.
#include <infiniband/verbs.h>

#include "cm/manager.h"

namespace isthmus::cm {
namespace {

GateTransport gate_transport_of(std::uint8_t qp_type) {
  switch (qp_type) {
    case IBV_QPT_UC:
      return GateTransport::kUc;
    case IBV_QPT_UD:
      return GateTransport::kUd;
    case IBV_QPT_XRC_SEND:
    case IBV_QPT_XRC_RECV:
      return GateTransport::kXrc;
    default:
      return GateTransport::kRc;
  }
}

}  // namespace

GateAnswer Manager::ask(GatePoint point, const Id& id, const wire::IpAddress& local,
                        const wire::IpAddress& remote, const Exchange* exchange) {
  GateQuestion question{.point = point,
                        .client = id.client,
                        .local = local,
                        .remote = remote,
                        .transport = gate_transport_of(id.qp_type)};
  // The port is the service's: the passive side's own, the active side's destination.
  question.port = id.role == Role::kPassive ? id.source.port : id.destination.port;
  if (exchange != nullptr) {
    question.origin = exchange->origin;
    if (const Id* other = find(exchange->neighbour)) question.neighbour = other->client;
  } else if (addresses_.find(remote)) {
    // Nothing has been sent yet, but the listener may be one of this daemon.
    const std::uint32_t listener =
        ports_.listener_for(id.space, id.destination.port, remote);
    if (const Id* other = find(listener)) question.neighbour = other->client;
    question.origin = Origin::kLoopback;
  }
  return gate_.judge(question);
}

GateAnswer Manager::ask_both(const Id& id, const Exchange& exchange) {
  const bool active = id.role == Role::kActive;
  GateAnswer request = ask(active ? GatePoint::kRequestOut : GatePoint::kRequestIn, id,
                           exchange.local, exchange.remote, &exchange);
  if (!request.allowed) return request;
  GateAnswer reply = ask(active ? GatePoint::kReplyIn : GatePoint::kReplyOut, id, exchange.local,
                         exchange.remote, &exchange);
  reply.peer_access &= request.peer_access;
  return reply;
}

std::optional<ConnectionGrant> Manager::find_grant(const GrantQuestion& question) {
  const Exchange* exchange =
      agent_.table().find_queue_pair(question.remote, question.remote_qpn);
  if (exchange == nullptr || exchange->local != question.local) return std::nullopt;
  const Id* id = find(exchange->user);
  if (id == nullptr || (question.client != 0 && question.client != id->client)) return std::nullopt;
  switch (exchange->state) {
    case ExchangeState::kRequestReceived:  // The QP goes to RTR before the program accepts.
      break;
    case ExchangeState::kReplyReceived:
    case ExchangeState::kReplySent:
    case ExchangeState::kEstablished:
      if (exchange->values.local_qpn != question.local_qpn) return std::nullopt;
      break;
    default:
      return std::nullopt;
  }
  return ConnectionGrant{.id = id->handle, .client = id->client, .peer_access = id->peer_access};
}

std::vector<Revocation> Manager::reevaluate(std::uint64_t now_ns) {
  std::vector<Revocation> revocations;
  for (auto& [handle, id] : ids_) {
    const Exchange* exchange = agent_.find(id->exchange);
    if (exchange == nullptr || (exchange->state != ExchangeState::kReplyReceived &&
                                exchange->state != ExchangeState::kReplySent &&
                                exchange->state != ExchangeState::kEstablished)) {
      continue;  // Not yet connected: the gate is asked again at the reply.
    }
    const GateAnswer answer = ask_both(*id, *exchange);
    if (answer.allowed && (id->peer_access & ~answer.peer_access) == 0) continue;
    Revocation& revocation = revocations.emplace_back();
    revocation.id = handle;
    revocation.client = id->client;
    revocation.local_qpn = exchange->values.local_qpn;
    revocation.local = exchange->local;
    revocation.remote = exchange->remote;
    revocation.remote_qpn = exchange->values.remote_qpn;
    revocation.denied = !answer.allowed;
    revocation.rule = answer.rule;
    if (answer.allowed) {
      id->peer_access &= answer.peer_access;
      revocation.peer_access = id->peer_access;
    }
  }
  for (const Revocation& revocation : revocations) {
    if (!revocation.denied) continue;
    ++counters_.revoked;
    Id* id = find_mutable(revocation.id);
    // The program learns at once; the peer's answer to the DREQ is not waited for.
    if (!id->end_reported) add_event(*id, EventType::kDisconnected);
    id->end_reported = true;
    (void)disconnect(now_ns, revocation.id);
    id->state = IdState::kClosed;
  }
  return revocations;
}

}  // namespace isthmus::cm
