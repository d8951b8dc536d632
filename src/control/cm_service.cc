// Programs that come and go, packets in and out, and the loop between core and world.
#include "control/cm_service.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/log.h"
#include "os/clock.h"
#include "os/random.h"
#include "wire/roce_packet.h"

namespace isthmus::control {
namespace {

constexpr int kRequestsPerTurn = 64;  // Of one program, before others have their turn.

}  // namespace

CmService::CmService(EventLoop& loop, const HostPolicy& policy, CmNetwork& network,
                     CmAddresses::RouteLookup route, CmHooks hooks,
                     const CmServiceOptions& options)
    : loop_(loop),
      network_(network),
      hooks_(std::move(hooks)),
      options_(options),
      mark_(options.cluster_key),
      addresses_(std::move(route)),
      gate_(policy, [this](cm::ClientId client) { return label_of(client); }),
      manager_(options.settings, os::random_u64, options.node_guid, addresses_, gate_),
      psn_(static_cast<std::uint32_t>(os::random_u64())) {}

// Peers are told nothing: the connections do not need us, and their programs bring them to the next
// daemon. If there is none, see disconnect_all().
CmService::~CmService() {
  for (const auto& [id, client] : clients_) {
    loop_.unwatch(client->connection.get());
    loop_.cancel(client->paused);
  }
  for (const auto& [handle, channel] : channels_) loop_.cancel(channel.retry);
  loop_.cancel(timer_);
}

std::optional<std::string> CmService::label_of(cm::ClientId client) const {
  const auto found = clients_.find(client);
  if (found == clients_.end()) return std::nullopt;
  return found->second->label;
}

void CmService::serve(os::Fd connection, const Greeting& greeting) {
  auto client = std::make_unique<CmClient>();
  client->id = next_client_++;
  client->connection = std::move(connection);
  client->credentials = greeting.credentials;
  const char* label = greeting.hello.label.data();
  client->label = label[0] != '\0' ? label : options_.default_label;
  client->program = greeting.hello.program.data();
  client->connects_left = kConnectBurst;
  client->refilled_ns = os::now_ns();
  const attach::Welcome welcome;
  if (!os::send_message(client->connection, attach::message_bytes(welcome), {})) return;
  const cm::ClientId id = client->id;
  const auto watched = loop_.watch(client->connection.get(), [this, id] { on_readable(id); });
  if (!watched) {
    ISTHMUS_LOG(kError, "cannot serve process %d: %s", client->credentials.process_id,
                watched.error().message.c_str());
    return;
  }
  ++counters_.clients;
  clients_[id] = std::move(client);
}

void CmService::on_readable(cm::ClientId id) {
  std::array<std::byte, attach::kCmMaxMessageBytes> buffer;
  for (int i = 0; i < kRequestsPerTurn; ++i) {
    const auto found = clients_.find(id);
    if (found == clients_.end()) break;
    CmClient& client = *found->second;
    if (client.paused != EventLoop::TimerId::kNone) break;
    Result<os::ReceivedMessage> received = os::receive_message(client.connection, buffer);
    if (!received) {
      if (received.error().code != ErrorCode::kAgain) drop_client(id);
      break;
    }
    const auto request =
        attach::decode_cm_request(std::span<const std::byte>(buffer).first(received->bytes));
    if (!request) {
      ++counters_.bad_requests;
      ISTHMUS_LOG(kWarning, "process %d (%s): %s", client.credentials.process_id,
                  client.program.c_str(), request.error().message.c_str());
      drop_client(id);
      break;
    }
    execute(client, *request, std::move(received->fds));
  }
  pump();
}

void CmService::drop_client(cm::ClientId id) {
  const auto found = clients_.find(id);
  if (found == clients_.end()) return;
  CmClient& client = *found->second;
  loop_.unwatch(client.connection.get());
  loop_.cancel(client.paused);
  const std::uint64_t now_ns = os::now_ns();
  for (const cm::IdHandle handle : client.ids) {
    manager_.destroy_id(now_ns, handle);
    ids_.erase(handle);
  }
  std::erase_if(memberships_, [&](const auto& m) { return !ids_.contains(m.second.id); });
  for (const std::uint32_t channel : client.channels) {
    loop_.cancel(channels_.at(channel).retry);
    channels_.erase(channel);
  }
  clients_.erase(found);
  pump();
}

bool CmService::disconnect_all() {
  const std::uint64_t now_ns = os::now_ns();
  bool any = false;
  for (const auto& [handle, record] : ids_) any = manager_.disconnect(now_ns, handle) || any;
  pump();
  return any;
}

// One connect costs one; who has none left is not read from until there is one again.
void CmService::pace(CmClient& client) {
  const std::uint64_t now_ns = os::now_ns();
  const double seconds = static_cast<double>(now_ns - client.refilled_ns) / os::kNsPerSecond;
  client.refilled_ns = now_ns;
  client.connects_left =
      std::min(kConnectBurst, client.connects_left + seconds * kConnectsPerSecond) - 1;
  if (client.connects_left >= 1) return;
  ++counters_.paused;
  loop_.unwatch(client.connection.get());
  const double wait_ns = (1 - client.connects_left) / kConnectsPerSecond * os::kNsPerSecond;
  const cm::ClientId id = client.id;
  client.paused = loop_.call_at(now_ns + static_cast<std::uint64_t>(wait_ns), [this, id] {
    CmClient& again = *clients_.at(id);  // A client that goes cancels this.
    again.paused = EventLoop::TimerId::kNone;
    if (!loop_.watch(again.connection.get(), [this, id] { on_readable(id); })) drop_client(id);
  });
}

void CmService::on_datagram(const CmDatagram& datagram) {
  const wire::IcrcFlow flow{.source = datagram.source,
                            .destination = datagram.destination,
                            .source_port = datagram.source_port,
                            .destination_port = wire::kRoceUdpPort};
  const CmPacketVerdict packet = parse_cm_packet(flow, datagram.payload, verifier_);
  switch (packet.kind) {
    case CmPacketVerdict::Kind::kNotForUs:
      return;
    case CmPacketVerdict::Kind::kMalformed:
      ++counters_.malformed;
      return;
    case CmPacketVerdict::Kind::kBadIcrc:
      ++counters_.bad_icrc;
      return;
    case CmPacketVerdict::Kind::kMad:
      break;
  }
  if (!addresses_.find(datagram.destination)) {
    ++counters_.malformed;
    return;
  }
  cm::IncomingMad incoming{.source = datagram.source,
                           .destination = datagram.destination,
                           .origin = cm::Origin::kForeign,
                           .mad = packet.mad};
  switch (mark_.judge(datagram.source, datagram.destination, packet.mad.first<wire::kMadBytes>())) {
    case MarkVerdict::kForged:
      ++counters_.forged;
      return;
    case MarkVerdict::kForeign:
      ++counters_.foreign_in;
      break;
    case MarkVerdict::kMarked:
      ++counters_.marked_in;
      incoming.origin = cm::Origin::kMarked;
      break;
  }
  manager_.on_mad(os::now_ns(), incoming);
  pump();
}

void CmService::pump() {
  std::vector<cm::Event> events;
  // Ends: the core answers a message with one message at most, and an answer with none; and
  // delivering makes something to send only where it refuses a request.
  do {
    exchange_messages();
    events = manager_.take_events();
    for (const cm::Event& event : events) deliver(event);
  } while (!events.empty());

  loop_.cancel(timer_);
  timer_ = EventLoop::TimerId::kNone;
  if (const auto deadline_ns = manager_.next_deadline()) {
    timer_ = loop_.call_at(*deadline_ns, [this] {
      timer_ = EventLoop::TimerId::kNone;
      manager_.on_timer(os::now_ns());
      pump();
    });
  }
}

void CmService::exchange_messages() {
  std::deque<cm::OutgoingMad> loopback;
  while (true) {
    for (cm::OutgoingMad& outgoing : manager_.take_outgoing()) transmit(outgoing, loopback);
    if (loopback.empty()) return;
    const cm::OutgoingMad next = loopback.front();
    loopback.pop_front();
    manager_.on_mad(os::now_ns(), {.source = next.source,
                                   .destination = next.destination,
                                   .origin = cm::Origin::kLoopback,
                                   .mad = next.mad});
  }
}

void CmService::transmit(cm::OutgoingMad& outgoing, std::deque<cm::OutgoingMad>& loopback) {
  if (addresses_.find(outgoing.destination)) {
    loopback.push_back(outgoing);
    return;
  }
  mark_.stamp(outgoing.source, outgoing.destination, outgoing.mad);
  if (options_.cluster_key) ++counters_.marked_out;
  std::array<std::byte, kCmPacketBytes> packet;
  make_cm_packet(outgoing.source, outgoing.destination, psn_++, outgoing.mad, packet);
  network_.send({.source = outgoing.source,
                 .destination = outgoing.destination,
                 .source_port = wire::kRoceUdpPort,
                 .payload = packet});
}

std::optional<cm::ConnectionGrant> CmService::find_grant(const AdmissionQuestion& question) {
  const auto grant = manager_.find_grant({.local_qpn = question.qpn,
                                          .local = question.local,
                                          .remote = question.remote,
                                          .remote_qpn = question.dest_qpn});
  // The queue pair's owner must be who asked for the connection, as policy sees it.
  if (!grant || label_of(grant->client) != question.label) return std::nullopt;
  return grant;
}

std::size_t CmService::reevaluate() {
  const std::vector<cm::Revocation> revocations = manager_.reevaluate(os::now_ns());
  for (const cm::Revocation& revocation : revocations) {
    if (revocation.denied && hooks_.revoke) hooks_.revoke(revocation.local_qpn);
    if (!revocation.denied && hooks_.restrict_access) {
      hooks_.restrict_access(revocation.local_qpn, revocation.peer_access);
    }
    ISTHMUS_LOG(kInfo, "%s connection %s to %s by rule \"%s\"",
                revocation.denied ? "revoked" : "restricted",
                revocation.local.to_string().c_str(), revocation.remote.to_string().c_str(),
                revocation.rule.c_str());
  }
  pump();
  return revocations.size();
}

std::vector<CmService::NamedCounter> CmService::counters() const {
  const cm::ManagerCounters& core = manager_.counters();
  const cm::AgentCounters& agent = manager_.agent_counters();
  return {
      {"cm_listens", core.listens},
      {"cm_requests_out", core.requests_out},
      {"cm_requests_in", core.requests_in},
      {"cm_replies_out", core.replies_out},
      {"cm_replies_in", core.replies_in},
      {"cm_established", core.established},
      {"cm_denied", core.denied},
      {"cm_revoked", core.revoked},
      {"cm_backlog_full", core.refused_backlog},
      {"cm_messages_resent", agent.resent},
      {"cm_messages_duplicate", agent.duplicates},
      {"cm_messages_unexpected", agent.unexpected + agent.wrong_source},
      {"cm_marked_out", counters_.marked_out},
      {"cm_marked_in", counters_.marked_in},
      {"cm_foreign_in", counters_.foreign_in},
      {"cm_forged", counters_.forged},
      {"cm_malformed", counters_.malformed + agent.malformed},
      {"cm_bad_icrc", counters_.bad_icrc},
      {"cm_events_lost", counters_.events_lost},
      {"cm_bad_requests", counters_.bad_requests},
      {"cm_paused", counters_.paused},
  };
}

}  // namespace isthmus::control
