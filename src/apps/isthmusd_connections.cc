#include "apps/isthmusd_connections.h"

#include <infiniband/verbs.h>

#include "wire/ip.h"

namespace isthmus::apps {
namespace {

using cluster::Direction;
using cluster::Endpoint;

cluster::Transport transport_of(std::uint32_t qp_type) {
  switch (qp_type) {
    case IBV_QPT_UC:
      return cluster::Transport::kUc;
    case IBV_QPT_UD:
      return cluster::Transport::kUd;
    case IBV_QPT_XRC_SEND:
    case IBV_QPT_XRC_RECV:
      return cluster::Transport::kXrc;
    default:
      return cluster::Transport::kRc;
  }
}

struct ManagedConnection {
  cm::Role role = cm::Role::kActive;
  std::uint16_t port = 0;
  bool foreign = false;
  wire::IpAddress remote;
  std::uint32_t remote_qpn = 0;
};
// By local QP number. Numbers are unique on a host.
using ManagedConnections = std::map<std::uint32_t, ManagedConnection>;

ManagedConnections managed_connections(std::span<control::CmService* const> managers) {
  ManagedConnections found;
  for (control::CmService* service : managers) {
    service->manager().for_each([&](const cm::Id& id, const cm::Exchange* exchange) {
      if (exchange == nullptr || exchange->values.local_qpn == 0) return;
      const bool active = id.role == cm::Role::kActive;
      found[exchange->values.local_qpn] = {.role = id.role,
                                           .port = active ? id.destination.port : id.source.port,
                                           .foreign = exchange->origin == cm::Origin::kForeign,
                                           .remote = exchange->remote,
                                           .remote_qpn = exchange->values.remote_qpn};
    });
  }
  return found;
}

std::string side_text(const Endpoint& end) {
  std::string text = end.gid ? wire::IpAddress{*end.gid}.to_string() : "?";
  if (end.label) text += " (" + std::string(*end.label) + ")";
  return text;
}

std::string rights_text(const cluster::PolicyVerdict& verdict) {
  std::string text = cluster::to_string(verdict.forward);
  if (verdict.forward != verdict.backward) {
    text += ", back " + cluster::to_string(verdict.backward);
  }
  return text;
}

}  // namespace

StandingConnections standing_connections(const control::FunctionService& functions,
                                         std::span<control::CmService* const> managers) {
  const ManagedConnections managed = managed_connections(managers);
  StandingConnections connections;
  functions.for_each([&](const control::Function& function) {
    for (const auto& [qpn, admission] : function.admissions) {
      auto made = std::make_unique<StandingConnection>();
      made->qpn = qpn;
      made->process_id = function.owner.process_id;
      made->program = function.program;
      made->label = function.label;
      const control::Function* peer = functions.owner_of_qp(admission.dest_qpn);
      made->peer_known = peer != nullptr && peer->place->has(admission.remote);
      if (made->peer_known) made->peer_label = peer->label;

      Endpoint own{.label = made->label, .gid = admission.local.bytes()};
      Endpoint other{.gid = admission.remote.bytes()};
      if (made->peer_known) other.label = made->peer_label;
      made->query = {.from = own,
                     .to = other,
                     .transport = transport_of(admission.transport),
                     .direction = Direction::kWithoutCm,
                     .mark = made->peer_known ? cluster::Mark::kPresent : cluster::Mark::kAbsent};
      const auto known = managed.find(qpn);
      if (known != managed.end() && known->second.remote == admission.remote &&
          known->second.remote_qpn == admission.dest_qpn) {
        const bool active = known->second.role == cm::Role::kActive;
        made->query.port = known->second.port;
        made->query.direction = active ? Direction::kRequestOut : Direction::kRequestIn;
        made->query.mark = known->second.foreign ? cluster::Mark::kAbsent : cluster::Mark::kPresent;
        if (!active) std::swap(made->query.from, made->query.to);
      }
      connections.push_back(std::move(made));
    }
  });
  return connections;
}

std::vector<control::ConnectionReport> report_connections(const StandingConnections& connections,
                                                          const cluster::PolicyDocument& before,
                                                          const cluster::PolicyDocument& document) {
  std::vector<control::ConnectionReport> reports;
  std::vector<cluster::LiveConnection> queries;
  for (const auto& connection : connections) {
    queries.push_back({.id = reports.size(), .query = connection->query});
    const cluster::PolicyVerdict verdict = document.evaluate(connection->query);
    reports.push_back({.qpn = connection->qpn,
                       .process_id = connection->process_id,
                       .program = connection->program,
                       .from = side_text(connection->query.from),
                       .to = side_text(connection->query.to),
                       .port = connection->query.port.value_or(0),
                       .transport = std::string(cluster::to_string(connection->query.transport)),
                       .decision = verdict.allowed() ? "allow" : "deny",
                       .rights = rights_text(verdict),
                       .rule = std::string(verdict.rule)});
  }
  for (const auto& loss : cluster::diff(before, document, queries)) {
    reports[loss.id].changed = true;
  }
  return reports;
}

}  // namespace isthmus::apps
