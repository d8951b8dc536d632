// What the library keeps behind the public structs: an Identifier behind each rdma_cm_id, a
// Membership behind each joined multicast group, an Event behind each rdma_cm_event.
//
// The public struct is the base class, so a pointer that a program gives back is one static_cast
// away from its Identifier. Programs read and write the public part without any lock, as the ABI
// has it; the rest is guarded as noted.
//
// Threading: fields marked [registry] are guarded by the registry lock of the Session, facts and
// route by their own lock; the others belong to the thread that works with the id, as the real
// library has it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "attach/cm_protocol.h"
#include "rdmacm/abi.h"
#include "rdmacm/device_registry.h"

namespace isthmus::rdmacm {

class Channel;
class Session;
struct Identifier;

// How far an id has come: what can be put back after the daemon was restarted.
enum class Stage : std::uint8_t {
  kFresh,             // Made, perhaps bound: a bind brings all of it back.
  kListening,
  kResolvingAddress,  // An event is due; it will be ADDR_ERROR.
  kResolvingRoute,    // An event is due; it will be ROUTE_ERROR.
  kResolved,          // No event is due; the next call fails.
  kConnecting,        // An event is due; it will be UNREACHABLE.
  kEstablished,
  kOver,
};

struct Membership {
  Identifier* identifier = nullptr;
  void* context = nullptr;
  attach::CmAddress group;
  std::uint32_t join_flags = 0;
  std::uint64_t cookie = 0;   // Never changes; the key of events.
  std::uint32_t handle = 0;   // The daemon's.
  ibv_gid mgid{};             // Once joined.
  bool joined = false;
  bool attached = false;      // The QP receives from mgid.
  int events_out = 0;         // [registry]
};

// What an established id is made of, for the next daemon.
struct ConnectionFacts {
  bool active = false;
  std::uint32_t local_qpn = 0;
  std::uint32_t remote_qpn = 0;
  std::uint32_t local_communication_id = 0;
  std::uint32_t remote_communication_id = 0;
};

struct Identifier : rdma_cm_id {
  explicit Identifier(Session& owner) : rdma_cm_id{}, session(&owner) {}
  ~Identifier();
  Identifier(const Identifier&) = delete;
  Identifier& operator=(const Identifier&) = delete;

  static Identifier& of(rdma_cm_id* id) { return *static_cast<Identifier*>(id); }
  bool is_datagram() const { return qp_type == IBV_QPT_UD; }

  Session* const session;
  Device* device = nullptr;
  std::uint64_t cookie = 0;                // Never changes; the key of events.
  std::atomic<std::uint32_t> handle{0};    // The daemon's; a restored id has a new one.
  std::atomic<Stage> stage{Stage::kFresh};
  bool synchronous = false;                // Owns its channel; calls wait for their event.
  bool connect_failed = false;             // Our QP could not follow: the rest is not shown.
  std::uint8_t initiator_depth = 0;
  std::uint8_t responder_resources = 0;
  int backlog = 0;
  ibv_ece local_ece{};
  ibv_ece remote_ece{};
  std::mutex facts_mutex;                  // Of the next two, which a recovery reads.
  attach::CmRoute last_route;              // As the daemon told it last.
  ConnectionFacts facts;
  std::vector<std::byte> connect_prefix;   // ai_connect of rdma_create_ep.
  std::optional<ibv_qp_init_attr> endpoint_qp;  // For the requests of an endpoint's listener.
  rdma_addrinfo* resolved = nullptr;       // Of rdma_resolve_addrinfo.
  std::vector<std::unique_ptr<Membership>> memberships;  // [registry]
  int events_out = 0;                      // [registry] Given to the program, not acknowledged.
};

struct Event : rdma_cm_event {
  Event() : rdma_cm_event{} {}
  Session* session = nullptr;
  Identifier* owner = nullptr;        // Counts it; of a CONNECT_REQUEST, the listener.
  Membership* membership = nullptr;
  std::array<std::uint8_t, attach::kCmPrivateBytes> private_data{};
};

// Takes over addresses, GIDs, device and path. Opens the device when the id is newly bound.
Result<void> apply_route(Identifier& identifier, const attach::CmRoute& route);

// As rdma_get_cm_event shows them.
ibv_ah_attr to_verbs(const attach::CmAddressHandle& handle);
void to_verbs(const attach::CmQpAttributesReply& reply, ibv_qp_attr& attributes, int& mask);

}  // namespace isthmus::rdmacm
