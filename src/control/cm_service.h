// CmService: the connection manager of one place (a network namespace of this host), between
// programs, the network and policy.
//
// Primer: it owns queue pair 1. A program's request comes in on its cm connection and becomes a
// command of the core (src/cm); what the core wants to send leaves as a marked packet through the
// network, or, when the other end is an address of this place, goes straight back into the core.
// Either way it passes the policy twice on each side. Events go into the channel of the id.
//
// A program that ends takes its ids with it: its peers get a DREQ, its listeners are gone. A
// program that makes connections too fast is read more slowly.
//
// Threading: shard-confined to the loop.
// Input: messages of programs are decoded by attach/cm_protocol.h, packets by cm_packet.h; what
// they mean is checked here and in the core.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "attach/cm_protocol.h"
#include "cm/manager.h"
#include "control/admission_gate.h"
#include "control/cm_addresses.h"
#include "control/cm_client.h"
#include "control/cm_mark.h"
#include "control/cm_packet.h"
#include "control/cm_policy.h"
#include "control/event_loop.h"
#include "control/function_service.h"
#include "wire/icrc.h"

namespace isthmus::control {

// What one program may start: so many connections at once, then so many a second.
inline constexpr double kConnectBurst = 10'000;
inline constexpr double kConnectsPerSecond = 10'000;
// Events that wait for one program to read. Beyond, new requests are refused and others are lost.
inline constexpr std::size_t kMaxWaitingEvents = 65'536;

// A datagram for or from the RoCE port.
struct CmDatagram {
  wire::IpAddress source;
  wire::IpAddress destination;
  std::uint16_t source_port = 0;
  std::span<const std::byte> payload;
};

class CmNetwork {
 public:
  virtual ~CmNetwork() = default;
  // From port 4791, with IP ID 0. May be lost.
  virtual void send(const CmDatagram& datagram) = 0;
};

// What the service asks of and tells to the owner of queue pairs. Any may be empty.
struct CmHooks {
  struct QpOwner {
    std::string label;
    std::uint32_t user_id = 0;
  };
  // Whose queue pair number this is; nothing: nobody's. Empty: not asked.
  std::function<std::optional<QpOwner>(std::uint32_t qpn)> owner_of_qp;
  // The policy took the connection of this queue pair away, or some of its peer's rights.
  std::function<void(std::uint32_t qpn)> revoke;
  std::function<void(std::uint32_t qpn, std::uint32_t access)> restrict_access;
};

struct CmServiceOptions {
  cm::Settings settings;
  std::uint64_t node_guid = 0;  // Host order.
  std::string default_label;
  std::optional<ClusterKey> cluster_key;
};

struct CmServiceCounters {
  std::uint64_t clients = 0;          // That ever connected.
  std::uint64_t marked_out = 0;       // Messages sent with our mark.
  std::uint64_t marked_in = 0;
  std::uint64_t foreign_in = 0;
  std::uint64_t forged = 0;           // Dropped: a mark, but not the right one.
  std::uint64_t malformed = 0;        // Dropped: no MAD of ours to be found in it.
  std::uint64_t bad_icrc = 0;         // Dropped.
  std::uint64_t events_lost = 0;
  std::uint64_t bad_requests = 0;     // Of programs; each ends its connection.
  std::uint64_t paused = 0;           // Programs that were too fast.
};

class CmService {
 public:
  CmService(EventLoop& loop, const HostPolicy& policy, CmNetwork& network,
            CmAddresses::RouteLookup route, CmHooks hooks, const CmServiceOptions& options);
  ~CmService();
  CmService(const CmService&) = delete;
  CmService& operator=(const CmService&) = delete;

  void set_gids(std::vector<LocalGid> gids) { addresses_.set_gids(std::move(gids)); }

  // Serves a connection of kind cm from its greeting on, which it answers.
  void serve(os::Fd connection, const Greeting& greeting);

  // For queue pair 1. What is for another one, or for no address of ours, is dropped.
  void on_datagram(const CmDatagram& datagram);

  // What the exception path granted to a queue pair that goes to RTR, or has gone there.
  std::optional<cm::ConnectionGrant> find_grant(const AdmissionQuestion& question);

  // As if all programs had asked for it. False: nothing was connected.
  bool disconnect_all();

  // The policy is another one: closes and restricts what it no longer allows. Returns how many.
  std::size_t reevaluate();

  // "cm_requests_sent" and so on, for status.
  struct NamedCounter {
    std::string name;
    std::uint64_t value = 0;
  };
  std::vector<NamedCounter> counters() const;
  const CmServiceCounters& own_counters() const { return counters_; }
  const cm::Manager& manager() const { return manager_; }
  cm::Manager& manager() { return manager_; }

 private:
  // cm_service.cc
  void on_readable(cm::ClientId client);
  void drop_client(cm::ClientId client);
  void pace(CmClient& client);
  void pump();  // Until nothing is left to send or to tell; then sets the timer.
  void exchange_messages();
  void transmit(cm::OutgoingMad& outgoing, std::deque<cm::OutgoingMad>& loopback);
  std::optional<std::string> label_of(cm::ClientId client) const;

  // cm_delivery.cc
  void deliver(const cm::Event& event);
  void adopt_child(const cm::Event& event);
  void write_event(std::uint32_t channel, const attach::CmEvent& event);
  bool try_write(CmChannel& channel, const attach::CmEvent& event);
  void retry(std::uint32_t channel);
  void discard_waiting(CmChannel& channel,
                       const std::function<bool(const attach::CmEvent&)>& which);

  // cm_commands.cc
  void execute(CmClient& client, const attach::CmRequest& request, std::vector<os::Fd> fds);
  template <class Reply>
  void answer(CmClient& client, const attach::CmRequestHeader& header, Result<Reply> reply);
  void run(CmClient& client, const attach::CmPlainRequest& request, std::vector<os::Fd> fds);
  template <class Request>
  void run(CmClient& client, const Request& request, std::vector<os::Fd>) {
    handle(client, request);
  }
  void handle(CmClient& client, const attach::CmCreateId& request);
  void handle(CmClient& client, const attach::CmBindAddress& request);
  void handle(CmClient& client, const attach::CmResolveAddress& request);
  void handle(CmClient& client, const attach::CmResolveRoute& request);
  void handle(CmClient& client, const attach::CmListen& request);
  void handle(CmClient& client, const attach::CmConnect& request);
  void handle(CmClient& client, const attach::CmAccept& request);
  void handle(CmClient& client, const attach::CmReject& request);
  void handle(CmClient& client, const attach::CmNotify& request);
  void handle(CmClient& client, const attach::CmInitQpAttributes& request);
  void handle(CmClient& client, const attach::CmSetOption& request);
  void handle(CmClient& client, const attach::CmJoinMulticast& request);
  void handle(CmClient& client, const attach::CmLeaveMulticast& request);
  void handle(CmClient& client, const attach::CmMigrateId& request);
  void handle(CmClient& client, const attach::CmRestoreId& request);
  Result<std::uint32_t> create_channel(CmClient& client, std::vector<os::Fd> fds);
  Result<void> destroy_channel(CmClient& client, std::uint32_t channel);
  Result<attach::CmCountReply> destroy_id(CmClient& client, cm::IdHandle id);
  Result<void> set_option(const attach::CmSetOption& request);
  Result<attach::CmRouteReply> route_reply(const Result<void>& done, cm::IdHandle id);
  Result<CmIdRecord*> own_id(const CmClient& client, cm::IdHandle id);
  Result<CmChannel*> own_channel(const CmClient& client, std::uint32_t channel);
  Result<void> check_queue_pair(const CmClient& client, std::uint32_t qpn) const;
  void add_id(CmClient& client, cm::IdHandle id, std::uint32_t channel, std::uint64_t cookie);

  EventLoop& loop_;
  CmNetwork& network_;
  const CmHooks hooks_;
  const CmServiceOptions options_;
  const CmMark mark_;
  CmAddresses addresses_;
  CmGate gate_;
  cm::Manager manager_;
  wire::IcrcVerifier verifier_;
  std::uint32_t psn_ = 0;  // Of the packets of queue pair 1; receivers do not look at it.
  EventLoop::TimerId timer_ = EventLoop::TimerId::kNone;

  std::unordered_map<cm::ClientId, std::unique_ptr<CmClient>> clients_;
  std::unordered_map<std::uint32_t, CmChannel> channels_;
  std::unordered_map<cm::IdHandle, CmIdRecord> ids_;
  std::map<std::uint32_t, CmMembership> memberships_;
  cm::ClientId next_client_ = 1;
  std::uint32_t next_channel_ = 1;
  CmServiceCounters counters_;
};

}  // namespace isthmus::control
