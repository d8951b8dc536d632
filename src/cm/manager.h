// Manager: rdma_cm's ids on top of the protocol: binding, resolving, listening, connecting, and
// the events that programs wait for.
//
// Primer: an id goes  idle -> bound -> address resolved -> route resolved -> connecting  on the
// active side, and  bound -> listening  on the passive one, where each request makes a new id.
// Only the connecting needs the network; the rest is looked up at once, and its event comes with
// the reply. Policy is asked four times per connection: request and reply, each on its own host.
//
// Threading: shard-confined.
// Input: commands come from programs and may name any handle and any value; the caller has
// checked that the handle is the program's own. Errors are those the man pages name.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "cm/agent.h"
#include "cm/host.h"
#include "cm/port_table.h"
#include "wire/rdma_cm_header.h"

namespace isthmus::cm {

using IdHandle = UserHandle;

// RDMA_UDP_QKEY: of every datagram QP and group that comes from rdma_cm.
inline constexpr std::uint32_t kUdpQkey = 0x0123'4567;

// As programs write it.
struct SocketAddress {
  Family family = Family::kV4;
  wire::IpAddress ip;  // The wildcard is 0.0.0.0 (::ffff:0:0) or ::.
  std::uint16_t port = 0;
  bool infiniband = false;  // An AF_IB address: no IP header in the private data.
  std::optional<wire::PortSpace> space;  // Of an AF_IB service id: takes the id's place.

  bool is_wildcard() const;
};

enum class IdState : std::uint8_t {
  kIdle,
  kBound,
  kAddressResolved,
  kRouteResolved,
  kListening,
  kConnecting,  // From the request until the connection is over; the exchange knows more.
  kClosed,      // Was connected, or refused.
};

enum class EventType : std::uint8_t {  // The values of rdma_cm_event_type.
  kAddressResolved = 0,
  kAddressError = 1,
  kRouteResolved = 2,
  kRouteError = 3,
  kConnectRequest = 4,
  kConnectResponse = 5,
  kConnectError = 6,
  kUnreachable = 7,
  kRejected = 8,
  kEstablished = 9,
  kDisconnected = 10,
  kDeviceRemoval = 11,
  kMulticastJoin = 12,
  kMulticastError = 13,
  kAddressChange = 14,
  kTimewaitExit = 15,
};

// rdma_conn_param.
struct ConnectionParameters {
  std::uint32_t qpn = 0;
  std::uint32_t qkey = 0;
  std::uint8_t responder_resources = 0;
  std::uint8_t initiator_depth = 0;
  std::uint8_t flow_control = 0;
  std::uint8_t retry_count = 0;
  std::uint8_t rnr_retry_count = 0;
  std::uint8_t srq = 0;
  std::uint8_t qp_type = 0;  // ibv_qp_type; 0: by the port space.
};

struct AddressHandle {
  wire::IpAddress destination;
  std::uint32_t flow_label = 0;
  std::uint16_t dlid = 0;
  std::uint8_t source_gid_index = 0;
  std::uint8_t hop_limit = 0;
  std::uint8_t traffic_class = 0;
};

struct Event {
  EventType type{};
  std::int32_t status = 0;
  IdHandle id = 0;
  IdHandle listener = 0;
  std::uint32_t multicast = 0;
  bool is_datagram = false;
  ConnectionParameters parameters;
  AddressHandle address_handle;
  std::vector<std::byte> private_data;
};

// The values for ibv_modify_qp; `mask` is ibv_qp_attr_mask.
struct QpAttributes {
  std::uint32_t mask = 0;
  ConnectionValues values;
  AddressHandle address_handle;
  std::uint32_t access_flags = 0;
  std::uint32_t qkey = 0;
  std::uint8_t min_rnr_timer = 0;
  ExchangeId local_id = ExchangeId::kNone;
  std::uint32_t remote_id = 0;
};

struct Multicast {
  wire::IpAddress group;
  bool sends_only = false;
};

struct Id {
  IdHandle handle = 0;
  ClientId client = 0;
  wire::PortSpace space{};
  std::uint8_t qp_type = 0;
  IdState state = IdState::kIdle;
  SocketAddress source;
  SocketAddress destination;
  std::optional<LocalAddress> device;  // Where the source address is.
  bool holds_port = false;
  bool destination_known = false;
  // Options.
  bool reuse_address = false;
  std::optional<bool> family_only;
  std::uint8_t type_of_service = 0;
  std::optional<std::uint8_t> ack_timeout;
  // As a listener.
  std::uint32_t backlog = 0;
  std::uint32_t pending = 0;  // Requests that wait for accept or reject.
  // As a connection.
  IdHandle listener = 0;  // Whose backlog this id counts in; 0: none, or no more.
  ExchangeId exchange = ExchangeId::kNone;
  Role role = Role::kActive;
  ConnectionParameters parameters;  // What its own program said.
  std::uint32_t peer_access = 0;
  bool end_reported = false;  // One DISCONNECTED, REJECTED or UNREACHABLE an id.
  std::map<std::uint32_t, Multicast> multicasts;
};

// A connection whose rights the new policy cuts.
struct Revocation {
  IdHandle id = 0;
  ClientId client = 0;
  std::uint32_t local_qpn = 0;
  wire::IpAddress local;
  wire::IpAddress remote;
  std::uint32_t remote_qpn = 0;
  bool denied = false;             // Closed. Otherwise:
  std::uint32_t peer_access = 0;   // what is left.
  std::string rule;
};

// What a queue pair asks for when it goes to RTR, and what the exception path had granted it.
struct GrantQuestion {
  ClientId client = 0;  // 0: any client of this daemon that the connection belongs to.
  std::uint32_t local_qpn = 0;
  wire::IpAddress local;
  wire::IpAddress remote;
  std::uint32_t remote_qpn = 0;
};
struct ConnectionGrant {
  IdHandle id = 0;
  ClientId client = 0;
  std::uint32_t peer_access = 0;
};

struct ManagerCounters {
  std::uint64_t requests_out = 0;  // Connections asked for, not messages: duplicates count once.
  std::uint64_t requests_in = 0;
  std::uint64_t replies_out = 0;
  std::uint64_t replies_in = 0;
  std::uint64_t denied = 0;        // By policy, at any of the four.
  std::uint64_t established = 0;
  std::uint64_t refused_backlog = 0;
  std::uint64_t revoked = 0;
  std::uint64_t listens = 0;       // Ids that began to.
};

class Manager : private AgentListener {
 public:
  Manager(const Settings& settings, ExchangeTable::Random random, std::uint64_t node_guid,
          const HostAddresses& addresses, PolicyGate& gate);

  // --- Commands of programs ---

  IdHandle create_id(ClientId client, wire::PortSpace space, std::uint8_t qp_type);
  void destroy_id(std::uint64_t now_ns, IdHandle handle);
  Result<void> bind(IdHandle handle, const SocketAddress& address);
  Result<void> resolve_address(IdHandle handle, const std::optional<SocketAddress>& source,
                               const SocketAddress& destination);
  Result<void> resolve_route(IdHandle handle);
  Result<void> listen(IdHandle handle, std::int32_t backlog);
  Result<void> connect(std::uint64_t now_ns, IdHandle handle,
                       const ConnectionParameters& parameters,
                       std::span<const std::byte> private_data);
  Result<void> accept(std::uint64_t now_ns, IdHandle handle,
                      const ConnectionParameters& parameters,
                      std::span<const std::byte> private_data);
  Result<void> reject(std::uint64_t now_ns, IdHandle handle, wire::RejectReason reason,
                      std::span<const std::byte> private_data);
  Result<void> disconnect(std::uint64_t now_ns, IdHandle handle);
  Result<void> establish(std::uint64_t now_ns, IdHandle handle);
  Result<void> data_arrived(std::uint64_t now_ns, IdHandle handle);
  // `state` is ibv_qp_state: INIT, RTR or RTS.
  Result<QpAttributes> qp_attributes(IdHandle handle, std::uint32_t state) const;
  Result<void> set_reuse_address(IdHandle handle, bool value);
  Result<void> set_family_only(IdHandle handle, bool value);
  Result<void> set_type_of_service(IdHandle handle, std::uint8_t value);
  Result<void> set_ack_timeout(IdHandle handle, std::uint8_t value);
  Result<std::uint32_t> join_multicast(IdHandle handle, const SocketAddress& group,
                                       bool sends_only);
  Result<void> leave_multicast(IdHandle handle, std::uint32_t multicast);
  // After a restart; see CmRestoreId. Policy is asked.
  Result<IdHandle> restore(ClientId client, wire::PortSpace space, const SocketAddress& source,
                           const SocketAddress& destination, const Exchange& established);

  const Id* find(IdHandle handle) const;

  // --- The world ---

  void on_mad(std::uint64_t now_ns, const IncomingMad& incoming) {
    agent_.on_mad(now_ns, incoming);
  }
  void on_timer(std::uint64_t now_ns) { agent_.on_timer(now_ns); }
  std::optional<std::uint64_t> next_deadline() const { return agent_.next_deadline(); }
  std::vector<OutgoingMad> take_outgoing() { return agent_.take_outgoing(); }
  std::vector<Event> take_events();

  // --- Policy ---

  // The grant of a connection that the exception path has let through; nothing: there is none.
  std::optional<ConnectionGrant> find_grant(const GrantQuestion& question);
  // Asks the gate again about every connection; closes what is no longer allowed.
  std::vector<Revocation> reevaluate(std::uint64_t now_ns);

  const ManagerCounters& counters() const { return counters_; }
  const AgentCounters& agent_counters() const { return agent_.counters(); }
  std::size_t id_count() const { return ids_.size(); }
  std::size_t connection_count() { return agent_.table().size(); }
  void for_each(const std::function<void(const Id&, const Exchange*)>& visit);

 private:
  // AgentListener; manager_events.cc.
  std::optional<Refusal> on_request(Exchange& exchange, const wire::CmReq& request) override;
  std::optional<Refusal> on_reply(Exchange& exchange, const wire::CmRep& reply) override;
  void on_established(Exchange& exchange) override;
  void on_rejected(Exchange& exchange, wire::RejectReason reason,
                   std::span<const std::byte> private_data) override;
  void on_unreachable(Exchange& exchange) override;
  void on_disconnected(Exchange& exchange) override;
  void on_timewait_exit(UserHandle user) override;
  std::optional<Refusal> on_resolve_request(Exchange& exchange,
                                            const wire::CmSidrReq& request) override;
  void on_resolve_reply(Exchange& exchange, const wire::CmSidrRep& reply) override;

  struct Arrival;  // A request, connected or not; manager_events.cc.
  std::optional<Refusal> admit(Exchange& exchange, const Arrival& arrival);

  Result<Id*> in_state(IdHandle handle, std::initializer_list<IdState> states, const char* what);
  Id* find_mutable(IdHandle handle);
  Id& make_id(ClientId client, wire::PortSpace space, std::uint8_t qp_type);
  Result<void> bind(Id& id, const SocketAddress& address);
  Result<void> resolve_address(Id& id, const SocketAddress& destination);
  Event& add_event(const Id& id, EventType type, std::int32_t status = 0);
  void leave_backlog(Id& id);
  // manager_policy.cc; `exchange` is null before there is one.
  GateAnswer ask(GatePoint point, const Id& id, const wire::IpAddress& local,
                 const wire::IpAddress& remote, const Exchange* exchange);
  GateAnswer ask_both(const Id& id, const Exchange& exchange);  // Request and reply.
  AddressHandle address_handle_of(const Id& id, const ConnectionValues& values,
                                  const wire::IpAddress& destination) const;

  const Settings settings_;
  const HostAddresses& addresses_;
  PolicyGate& gate_;
  ExchangeTable::Random random_;
  Agent agent_;
  PortTable ports_;
  std::unordered_map<IdHandle, std::unique_ptr<Id>> ids_;
  IdHandle next_handle_ = 1;
  std::uint32_t next_multicast_ = 1;
  std::vector<Event> events_;
  ManagerCounters counters_;
};

}  // namespace isthmus::cm
