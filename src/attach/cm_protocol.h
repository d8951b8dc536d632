// The messages between librdmacm and the daemon's connection manager.
//
// Primer: a process opens one `cm` connection to the attach socket (AF_UNIX, SOCK_SEQPACKET; the
// greeting that chooses the kind of a connection is attach_protocol.h's). On it, requests are
// synchronous: one request, one reply, in order. Events do not come on it. For each
// rdma_event_channel the client makes a socketpair(SOCK_SEQPACKET) and hands one end to the daemon
// with kCreateChannel; the daemon writes one CmEvent message per event into it, in order. The other
// end is channel->fd, so polling and O_NONBLOCK work as programs expect. The client keeps a
// duplicate of the daemon's end: with it, it puts back events that it read past while migrating an
// id, and hands the same end to the next daemon after a restart.
//
//     request   CmRequestHeader, then the command's own fields; exactly the size of its struct
//     reply     CmReplyHeader, then the command's own fields; a failed command answers with the
//               header alone
//     event     CmEvent
//
// Ids. The daemon names ids, channels and multicast memberships by 32-bit handles; 0 names none. A
// handle is not reused while the connection lives. A CONNECT_REQUEST event brings a new handle
// that the client may use at once; its cookie is 0 until kAccept sets it.
//
// Byte order is the machine's: these messages never leave it. Port numbers are in host order.
//
// Input: both sides check what they read with the decoders below and keep the copy. A decoder
// accepts exactly one size per message, and every length and enumerator in range; reserved fields
// are ignored.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <variant>

#include "base/result.h"

struct sockaddr;

namespace isthmus::attach {

inline constexpr std::uint16_t kCmProtocolVersion = 1;

// The largest private data of any message is RTU's: 224 bytes. rdma_cm's own bound is 256.
inline constexpr std::size_t kCmPrivateBytes = 256;
// Both directions; a receive buffer of this size takes any message.
inline constexpr std::size_t kCmMaxMessageBytes = 1024;
// What one process may have at a time. A command past it fails with ENOMEM.
inline constexpr std::uint32_t kCmMaxIds = 65536;
inline constexpr std::uint32_t kCmMaxChannels = 16384;
// A larger backlog is cut to this; 0 or less means this too.
inline constexpr std::uint32_t kCmMaxBacklog = 4096;

enum class CmCommand : std::uint16_t {
  kCreateChannel = 1,  // CmPlainRequest + one fd (SCM_RIGHTS) -> CmHandleReply: the channel
  kDestroyChannel,     // CmPlainRequest, id = channel         -> CmPlainReply; EBUSY with ids on it
  kCreateId,           // CmCreateId                           -> CmHandleReply: the id
  kDestroyId,          // CmPlainRequest                       -> CmCountReply
  kBindAddress,        // CmBindAddress                        -> CmRouteReply
  kResolveAddress,     // CmResolveAddress  -> CmRouteReply, then ADDR_RESOLVED or ADDR_ERROR
  kResolveRoute,       // CmResolveRoute    -> CmRouteReply, then ROUTE_RESOLVED or ROUTE_ERROR
  kListen,             // CmListen          -> CmRouteReply, with the port now chosen
  kConnect,            // CmConnect         -> CmPlainReply, then events
  kAccept,             // CmAccept          -> CmPlainReply, then ESTABLISHED
  kReject,             // CmReject                             -> CmPlainReply
  kDisconnect,         // CmPlainRequest    -> CmPlainReply, then DISCONNECTED
  kEstablish,          // CmPlainRequest, after CONNECT_RESPONSE and RTS -> CmPlainReply; no event
  kNotify,             // CmNotify: an asynchronous event of the QP (IBV_EVENT_COMM_EST)
  kInitQpAttributes,   // CmInitQpAttributes                   -> CmQpAttributesReply
  kSetOption,          // CmSetOption                          -> CmPlainReply
  kJoinMulticast,      // CmJoinMulticast   -> CmHandleReply, then MULTICAST_JOIN or _ERROR
  kLeaveMulticast,     // CmLeaveMulticast                     -> CmCountReply
  kMigrateId,          // CmMigrateId                          -> CmCountReply, of the old channel
  kQuery,              // CmPlainRequest                       -> CmRouteReply
  kRestoreId,          // CmRestoreId: an established id, to a restarted daemon -> CmHandleReply
};
inline constexpr std::uint16_t kCmLastCommand = 21;

// The values are rdma_port_space's.
enum class CmPortSpace : std::uint16_t {
  kIpoib = 0x0002,
  kTcp = 0x0106,
  kUdp = 0x0111,
  kIb = 0x013f,
};

// The values are rdma_cm_event_type's.
enum class CmEventType : std::uint16_t {
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
inline constexpr std::uint16_t kCmLastEventType = 15;

// An address as programs give and get it. AF_IB (27) addresses carry a GID and a service id; they
// are understood where the GID is one of an IP address, as all GIDs of RoCEv2 are.
struct CmAddress {
  std::uint16_t family = 0;  // AF_UNSPEC, AF_INET, AF_INET6 or AF_IB.
  std::uint16_t port = 0;    // Host order.
  std::uint32_t scope_id = 0;
  // IPv6 address or GID; an IPv4 address as ::ffff:a.b.c.d, which is its GID.
  std::array<std::uint8_t, 16> ip{};
  std::uint64_t service_id = 0;    // AF_IB only, host order, as is the mask.
  std::uint64_t service_mask = 0;
  friend bool operator==(const CmAddress&, const CmAddress&) = default;
};
static_assert(sizeof(CmAddress) == 40);

inline constexpr std::uint16_t kCmFamilyIb = 27;  // AF_IB.

// Where an id is and goes. What is not yet known is zero.
struct CmRoute {
  CmAddress source;
  CmAddress destination;
  std::array<std::uint8_t, 16> source_gid{};
  std::array<std::uint8_t, 16> destination_gid{};
  std::uint64_t node_guid = 0;  // As ibv_get_device_guid: network order.
  std::uint32_t flow_label = 0;
  std::uint16_t pkey = 0xffff;  // Host order.
  std::uint8_t bound = 0;       // 1: the id has a device and a source GID, so id->verbs is set.
  std::uint8_t path_count = 0;  // 1 once the route is resolved.
  std::uint8_t port_num = 0;    // 1 when bound.
  std::uint8_t gid_index = 0;
  std::uint8_t mtu = 0;               // enum ibv_mtu.
  std::uint8_t rate = 0;              // enum ibv_rate.
  std::uint8_t packet_life_time = 0;  // 4.096 us * 2^this.
  std::uint8_t service_level = 0;
  std::uint8_t traffic_class = 0;
  std::uint8_t hop_limit = 0;
};
static_assert(sizeof(CmRoute) == 136);

// rdma_conn_param without its pointer, and what a QP made on the id fills in.
struct CmConnectionParameters {
  std::uint32_t qpn = 0;  // 24 bits.
  std::uint32_t qkey = 0;
  std::uint8_t responder_resources = 0;
  std::uint8_t initiator_depth = 0;
  std::uint8_t flow_control = 0;
  std::uint8_t retry_count = 0;      // 3 bits.
  std::uint8_t rnr_retry_count = 0;  // 3 bits.
  std::uint8_t srq = 0;              // 0 or 1.
  std::uint8_t qp_type = 0;          // enum ibv_qp_type: RC 2, UC 3, UD 4, XRC send 9, receive 10.
  std::uint8_t reserved = 0;
};
static_assert(sizeof(CmConnectionParameters) == 16);

struct CmPrivateData {
  std::uint16_t bytes = 0;
  std::array<std::uint8_t, kCmPrivateBytes> data{};
};
static_assert(sizeof(CmPrivateData) == 258);

// ibv_ah_attr.
struct CmAddressHandle {
  std::array<std::uint8_t, 16> destination_gid{};
  std::uint32_t flow_label = 0;
  std::uint16_t dlid = 0;
  std::uint8_t source_gid_index = 0;
  std::uint8_t hop_limit = 0;
  std::uint8_t traffic_class = 0;
  std::uint8_t service_level = 0;
  std::uint8_t static_rate = 0;
  std::uint8_t is_global = 0;
  std::uint8_t port_num = 0;
  std::array<std::uint8_t, 3> reserved{};
};
static_assert(sizeof(CmAddressHandle) == 32);

// --- Requests --------------------------------------------------------------------------------

struct CmRequestHeader {
  std::uint16_t version = kCmProtocolVersion;
  CmCommand command{};
  std::uint32_t sequence = 0;  // Comes back in the reply.
  std::uint32_t id = 0;        // What the command is about: an id, or a channel where noted.
  std::uint32_t reserved = 0;
};
static_assert(sizeof(CmRequestHeader) == 16);

struct CmPlainRequest {
  CmRequestHeader header;
};

struct CmCreateId {
  CmRequestHeader header;
  std::uint64_t cookie = 0;  // Comes back in every event of the id.
  std::uint32_t channel = 0;
  CmPortSpace port_space{};
  std::uint8_t qp_type = 0;  // Meaningful with kIb.
  std::uint8_t reserved = 0;
};

struct CmBindAddress {
  CmRequestHeader header;
  CmAddress address;  // Any address of the wildcard kind and port 0 are allowed.
};

struct CmResolveAddress {
  CmRequestHeader header;
  CmAddress source;  // Family 0: the daemon chooses.
  CmAddress destination;
  std::uint32_t timeout_ms = 0;
  std::uint32_t reserved = 0;
};

struct CmResolveRoute {
  CmRequestHeader header;
  std::uint32_t timeout_ms = 0;
  std::uint32_t reserved = 0;
};

struct CmListen {
  CmRequestHeader header;
  std::int32_t backlog = 0;
  std::uint32_t reserved = 0;
};

struct CmConnect {
  CmRequestHeader header;
  CmConnectionParameters parameters;
  // At most 56 bytes, or 180 of a datagram service; with AF_IB addresses 36 more, as no IP header
  // goes before them.
  CmPrivateData private_data;
  std::uint16_t reserved[3] = {};
};

struct CmAccept {
  CmRequestHeader header;
  std::uint64_t cookie = 0;
  CmConnectionParameters parameters;
  CmPrivateData private_data;  // At most 196 bytes for kTcp, 136 for kUdp.
  std::uint16_t reserved[3] = {};
};

struct CmReject {
  CmRequestHeader header;
  std::uint16_t reason = 28;   // 28: consumer reject. rdma_reject_ece uses 35.
  CmPrivateData private_data;  // At most 148 bytes for kTcp, 136 for kUdp.
  std::uint16_t reserved[2] = {};
};

struct CmNotify {
  CmRequestHeader header;
  std::uint32_t event = 0;  // enum ibv_event_type.
  std::uint32_t reserved = 0;
};

struct CmInitQpAttributes {
  CmRequestHeader header;
  std::uint32_t qp_state = 0;  // enum ibv_qp_state: INIT 1, RTR 2 or RTS 3.
  std::uint32_t reserved = 0;
};

// RDMA_OPTION_ID: TOS (u8), REUSEADDR (int), AFONLY (int), ACK_TIMEOUT (u8). RDMA_OPTION_IB: PATH.
struct CmSetOption {
  CmRequestHeader header;
  std::uint32_t level = 0;
  std::uint32_t name = 0;
  std::uint32_t value_bytes = 0;
  std::array<std::uint8_t, 256> value{};
  std::uint32_t reserved = 0;
};

struct CmJoinMulticast {
  CmRequestHeader header;
  std::uint64_t cookie = 0;  // Comes back in the MULTICAST events.
  CmAddress group;
  std::uint32_t join_flags = 0;  // 0: full member; 1: sends only.
  std::uint32_t reserved = 0;
};

struct CmLeaveMulticast {
  CmRequestHeader header;
  std::uint32_t multicast = 0;
  std::uint32_t reserved = 0;
};

struct CmMigrateId {
  CmRequestHeader header;
  std::uint32_t channel = 0;
  std::uint32_t reserved = 0;
};

// After the daemon was restarted: an id that was established before. The policy is asked again;
// nothing in here is believed beyond what it allows. Listeners are made anew with kListen.
struct CmRestoreId {
  CmRequestHeader header;
  std::uint64_t cookie = 0;
  std::uint32_t channel = 0;
  CmPortSpace port_space{};
  std::uint8_t qp_type = 0;
  std::uint8_t active = 0;  // 1: this side sent the REQ.
  CmRoute route;
  std::uint32_t local_qpn = 0;
  std::uint32_t remote_qpn = 0;
  std::uint32_t local_communication_id = 0;  // From CmQpAttributesReply.
  std::uint32_t remote_communication_id = 0;
};

// --- Replies ---------------------------------------------------------------------------------

struct CmReplyHeader {
  CmCommand command{};
  std::uint16_t reserved = 0;
  std::uint32_t sequence = 0;
  std::int32_t error = 0;  // 0, or an errno value.
  std::uint32_t reserved2 = 0;
};
static_assert(sizeof(CmReplyHeader) == 16);

struct CmPlainReply {
  CmReplyHeader header;
};

struct CmHandleReply {
  CmReplyHeader header;
  std::uint32_t handle = 0;
  std::uint32_t reserved = 0;
};

// How many events of the id the daemon has written to its channel (a CONNECT_REQUEST counts for
// the listener). They may still lie unread in the socket; no more will come.
struct CmCountReply {
  CmReplyHeader header;
  std::uint32_t events_delivered = 0;
  std::uint32_t reserved = 0;
};

struct CmRouteReply {
  CmReplyHeader header;
  CmRoute route;
};

// The fields of ibv_qp_attr that `mask` (enum ibv_qp_attr_mask) names; the others are zero.
struct CmQpAttributesReply {
  CmReplyHeader header;
  std::uint32_t mask = 0;
  std::uint32_t qp_state = 0;
  std::uint32_t path_mtu = 0;
  std::uint32_t qkey = 0;
  std::uint32_t rq_psn = 0;
  std::uint32_t sq_psn = 0;
  std::uint32_t dest_qpn = 0;
  std::uint32_t access_flags = 0;
  CmAddressHandle address_handle;
  std::uint16_t pkey_index = 0;
  std::uint8_t port_num = 0;
  std::uint8_t max_rd_atomic = 0;
  std::uint8_t max_dest_rd_atomic = 0;
  std::uint8_t min_rnr_timer = 0;
  std::uint8_t timeout = 0;
  std::uint8_t retry_count = 0;
  std::uint8_t rnr_retry = 0;
  std::uint8_t reserved[3] = {};
  std::uint32_t local_communication_id = 0;  // Keep both for kRestoreId; 0 until known.
  std::uint32_t remote_communication_id = 0;
};

// --- Events ----------------------------------------------------------------------------------

struct CmEvent {
  std::uint16_t version = kCmProtocolVersion;
  CmEventType type{};
  // 0; or a negative errno value; or, for kRejected, the reason of the REJ (28: by the consumer;
  // 8: nobody listens) or of the SIDR_REP, positive. As rdma_cm reports them.
  std::int32_t status = 0;
  std::uint32_t id = 0;         // kConnectRequest: the new id.
  std::uint32_t listen_id = 0;  // kConnectRequest: the listener; else 0.
  std::uint64_t cookie = 0;     // Of `id`; MULTICAST events: of the membership.
  std::uint64_t listen_cookie = 0;
  std::uint32_t multicast = 0;  // MULTICAST events: the membership; else 0.
  std::uint8_t is_datagram = 0;  // 1: param.ud is valid (kUdp, kIpoib); 0: param.conn.
  std::uint8_t reserved[3] = {};
  CmConnectionParameters connection;  // param.conn; qpn and qkey are param.ud's as well.
  CmAddressHandle address_handle;     // param.ud.ah_attr.
  CmRoute route;                      // Of `id`, as it is now.
  CmPrivateData private_data;         // `bytes` is the whole field of the message, as rdma_cm's.
  std::uint16_t reserved2[3] = {};
};

// --- Decoding --------------------------------------------------------------------------------

using CmRequest =
    std::variant<CmPlainRequest, CmCreateId, CmBindAddress, CmResolveAddress, CmResolveRoute,
                 CmListen, CmConnect, CmAccept, CmReject, CmNotify, CmInitQpAttributes,
                 CmSetOption, CmJoinMulticast, CmLeaveMulticast, CmMigrateId, CmRestoreId>;

// kInvalid: not exactly one well-formed request.
Result<CmRequest> decode_cm_request(std::span<const std::byte> message);
Result<CmEvent> decode_cm_event(std::span<const std::byte> message);

// The header at least, for a reply of any kind. kInvalid: not a reply to that command.
Result<CmReplyHeader> decode_cm_reply_header(std::span<const std::byte> message,
                                             CmCommand command);

// Copies a reply of type T. A failed command's reply, which is the header alone, comes back as T
// with the header's error set and zeroes behind it.
template <class T>
Result<T> decode_cm_reply(std::span<const std::byte> message, CmCommand command);

// The header of any request; the other fields of a request are its own.
const CmRequestHeader& header_of(const CmRequest& request);

template <class T>
std::span<const std::byte> bytes_of(const T& message) {
  static_assert(std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>,
                "a message has no padding, which would carry what lay on the stack");
  return std::as_bytes(std::span{&message, 1});
}

// --- Addresses -------------------------------------------------------------------------------

// A null pointer and AF_UNSPEC give family 0; an unknown family, or too few bytes for the family,
// is kInvalid.
Result<CmAddress> cm_address_of(const sockaddr* address, std::size_t bytes);

// Writes a sockaddr_in, sockaddr_in6 or sockaddr_ib into `out` (room for sockaddr_storage) and
// returns its length; 0 for family 0.
std::size_t write_sockaddr(const CmAddress& address, sockaddr* out);

}  // namespace isthmus::attach
