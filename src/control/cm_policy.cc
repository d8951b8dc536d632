#include "control/cm_policy.h"

#include <infiniband/verbs.h>

#include "base/log.h"
#include "os/clock.h"

namespace isthmus::control {
namespace {

using cluster::ConnectionQuery;
using cluster::Direction;
using cluster::Endpoint;

Direction direction_of(cm::GatePoint point) {
  switch (point) {
    case cm::GatePoint::kRequestOut:
      return Direction::kRequestOut;
    case cm::GatePoint::kRequestIn:
      return Direction::kRequestIn;
    case cm::GatePoint::kReplyOut:
      return Direction::kReplyOut;
    case cm::GatePoint::kReplyIn:
      return Direction::kReplyIn;
  }
  return Direction::kRequestIn;
}

// Whether the program on this side is the one that asked for the connection.
bool we_asked(cm::GatePoint point) {
  return point == cm::GatePoint::kRequestOut || point == cm::GatePoint::kReplyIn;
}

cluster::Transport transport_of(cm::GateTransport transport) {
  switch (transport) {
    case cm::GateTransport::kRc:
      return cluster::Transport::kRc;
    case cm::GateTransport::kUc:
      return cluster::Transport::kUc;
    case cm::GateTransport::kXrc:
      return cluster::Transport::kXrc;
    case cm::GateTransport::kUd:
      return cluster::Transport::kUd;
  }
  return cluster::Transport::kRc;
}

cluster::Transport transport_of(std::uint32_t qp_type) {
  switch (qp_type) {
    case IBV_QPT_UC:
      return cluster::Transport::kUc;
    case IBV_QPT_XRC_SEND:
    case IBV_QPT_XRC_RECV:
      return cluster::Transport::kXrc;
    case IBV_QPT_UD:
      return cluster::Transport::kUd;
    default:
      return cluster::Transport::kRc;
  }
}

Endpoint endpoint(const std::optional<std::string>& label, const wire::IpAddress& ip) {
  Endpoint end{.gid = ip.bytes()};
  if (label) end.label = *label;
  return end;
}

const char* name_of(Direction direction) {
  switch (direction) {
    case Direction::kRequestOut:
      return "request out";
    case Direction::kRequestIn:
      return "request in";
    case Direction::kReplyOut:
      return "reply out";
    case Direction::kReplyIn:
      return "reply in";
    case Direction::kWithoutCm:
      return "queue pair";
  }
  return "message";
}

std::string describe(const Endpoint& end) {
  std::string text = end.gid ? wire::IpAddress(*end.gid).to_string() : std::string("?");
  if (end.label) text += " (" + std::string(*end.label) + ")";
  return text;
}

}  // namespace

std::uint32_t access_flags_of(cluster::Rights rights) {
  std::uint32_t flags = 0;
  if (rights.has(cluster::Right::kRead)) flags |= IBV_ACCESS_REMOTE_READ;
  if (rights.has(cluster::Right::kWrite)) flags |= IBV_ACCESS_REMOTE_WRITE;
  if (rights.has(cluster::Right::kAtomic)) flags |= IBV_ACCESS_REMOTE_ATOMIC;
  return flags;
}

cm::GateAnswer CmGate::judge(const cm::GateQuestion& question) {
  const std::optional<std::string> own_label = label_of_(question.client);
  const std::optional<std::string> other_label =
      question.neighbour != 0 ? label_of_(question.neighbour) : std::nullopt;
  const Endpoint own = endpoint(own_label, question.local);
  const Endpoint other = endpoint(other_label, question.remote);
  const bool asked = we_asked(question.point);
  const ConnectionQuery query{
      .from = asked ? own : other,
      .to = asked ? other : own,
      .port = question.port,
      .transport = transport_of(question.transport),
      .direction = direction_of(question.point),
      .mark = question.origin == cm::Origin::kForeign ? cluster::Mark::kAbsent
                                                      : cluster::Mark::kPresent};
  const cluster::PolicyVerdict verdict = policy_.document().evaluate(query);
  cm::GateAnswer answer{.allowed = verdict.allowed(), .rule = std::string(verdict.rule)};
  answer.peer_access = access_flags_of(asked ? verdict.backward : verdict.forward);
  if (!answer.allowed) log_denial(question, query, answer.rule);
  return answer;
}

void CmGate::log_denial(const cm::GateQuestion& question, const ConnectionQuery& query,
                        const std::string& rule) {
  const std::uint64_t second = os::now_ns() / os::kNsPerSecond;
  if (second != log_second_) lines_in_second_ = 0;
  log_second_ = second;
  if (++lines_in_second_ > kDenialLinesPerSecond) return;
  ISTHMUS_LOG(kWarning, "denied %s from %s to %s port %u by rule \"%s\"",
              name_of(query.direction), describe(query.from).c_str(),
              describe(query.to).c_str(), question.port.value_or(0), rule.c_str());
}

AdmissionAnswer CmAdmissionGate::judge(const AdmissionQuestion& question) {
  if (const auto grant = find_grant_(question)) {
    return {.allowed = true, .peer_access = grant->peer_access, .rule = "connection manager"};
  }
  const bool same_daemon = question.remote_label.has_value();
  const ConnectionQuery query{
      .from = endpoint(question.label, question.local),
      .to = endpoint(question.remote_label, question.remote),
      .transport = transport_of(question.transport),
      .direction = Direction::kWithoutCm,
      .mark = same_daemon ? cluster::Mark::kPresent : cluster::Mark::kAbsent};
  const cluster::PolicyVerdict verdict = policy_.document().evaluate(query);
  return {.allowed = verdict.allowed(),
          .peer_access = access_flags_of(verdict.backward),
          .rule = std::string(verdict.rule)};
}

}  // namespace isthmus::control
