#include "attach/cm_protocol.h"

#include <infiniband/ib.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>
#include <optional>

#include "wire/byte_order.h"

namespace isthmus::attach {
namespace {

static_assert(kCmFamilyIb == AF_IB);

constexpr std::uint32_t kQpnMask = 0x00ff'ffff;
constexpr std::size_t kV4Offset = 12;  // In ::ffff:a.b.c.d.

bool is_address(const CmAddress& address) {
  switch (address.family) {
    case AF_UNSPEC:
    case AF_INET6:
    case AF_IB:
      return true;
    case AF_INET: {
      static constexpr std::uint8_t kPrefix[kV4Offset] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
      return std::memcmp(address.ip.data(), kPrefix, sizeof kPrefix) == 0;
    }
    default:
      return false;
  }
}

bool is_port_space(CmPortSpace port_space) {
  switch (port_space) {
    case CmPortSpace::kIpoib:
    case CmPortSpace::kTcp:
    case CmPortSpace::kUdp:
    case CmPortSpace::kIb:
      return true;
  }
  return false;
}

bool is_route(const CmRoute& route) {
  return is_address(route.source) && is_address(route.destination) && route.bound <= 1 &&
         route.path_count <= 1;
}

// retry_count and rnr_retry_count are not checked: programs leave anything there when accepting,
// and the core cuts them to their three bits as rdma_cm does.
bool is_parameters(const CmConnectionParameters& parameters) {
  return parameters.qpn <= kQpnMask;
}

bool is_private_data(const CmPrivateData& data) { return data.bytes <= kCmPrivateBytes; }

// What a message of each type must hold beyond its size.
bool is_valid(const CmPlainRequest&) { return true; }
bool is_valid(const CmCreateId& request) { return is_port_space(request.port_space); }
bool is_valid(const CmBindAddress& request) { return is_address(request.address); }
bool is_valid(const CmResolveAddress& request) {
  return is_address(request.source) && is_address(request.destination);
}
bool is_valid(const CmResolveRoute&) { return true; }
bool is_valid(const CmListen&) { return true; }
bool is_valid(const CmConnect& request) {
  return is_parameters(request.parameters) && is_private_data(request.private_data);
}
bool is_valid(const CmAccept& request) {
  return is_parameters(request.parameters) && is_private_data(request.private_data);
}
bool is_valid(const CmReject& request) { return is_private_data(request.private_data); }
bool is_valid(const CmNotify&) { return true; }
bool is_valid(const CmInitQpAttributes&) { return true; }
bool is_valid(const CmSetOption& request) { return request.value_bytes <= request.value.size(); }
bool is_valid(const CmJoinMulticast& request) { return is_address(request.group); }
bool is_valid(const CmLeaveMulticast&) { return true; }
bool is_valid(const CmMigrateId&) { return true; }
bool is_valid(const CmRestoreId& request) {
  return is_port_space(request.port_space) && is_route(request.route) &&
         request.local_qpn <= kQpnMask && request.remote_qpn <= kQpnMask;
}
bool is_valid(const CmEvent& event) {
  return event.version == kCmProtocolVersion &&
         static_cast<std::uint16_t>(event.type) <= kCmLastEventType && event.is_datagram <= 1 &&
         is_parameters(event.connection) && is_route(event.route) &&
         is_private_data(event.private_data);
}

template <class T>
std::optional<T> decode(std::span<const std::byte> message) {
  if (message.size() != sizeof(T)) return std::nullopt;
  T copy;
  std::memcpy(&copy, message.data(), sizeof copy);
  if (!is_valid(copy)) return std::nullopt;
  return copy;
}

template <class T>
Result<CmRequest> decode_request(std::span<const std::byte> message, const char* name) {
  std::optional<T> request = decode<T>(message);
  if (!request) {
    return fail(ErrorCode::kInvalid, "cm request %s: malformed (%zu bytes, %zu expected)", name,
                message.size(), sizeof(T));
  }
  return CmRequest{*request};
}

Result<CmRequest> decode_body(CmCommand command, std::span<const std::byte> message) {
  switch (command) {
    case CmCommand::kCreateChannel:
    case CmCommand::kDestroyChannel:
    case CmCommand::kDestroyId:
    case CmCommand::kDisconnect:
    case CmCommand::kEstablish:
    case CmCommand::kQuery:
      return decode_request<CmPlainRequest>(message, "without fields");
    case CmCommand::kCreateId:
      return decode_request<CmCreateId>(message, "create_id");
    case CmCommand::kBindAddress:
      return decode_request<CmBindAddress>(message, "bind_addr");
    case CmCommand::kResolveAddress:
      return decode_request<CmResolveAddress>(message, "resolve_addr");
    case CmCommand::kResolveRoute:
      return decode_request<CmResolveRoute>(message, "resolve_route");
    case CmCommand::kListen:
      return decode_request<CmListen>(message, "listen");
    case CmCommand::kConnect:
      return decode_request<CmConnect>(message, "connect");
    case CmCommand::kAccept:
      return decode_request<CmAccept>(message, "accept");
    case CmCommand::kReject:
      return decode_request<CmReject>(message, "reject");
    case CmCommand::kNotify:
      return decode_request<CmNotify>(message, "notify");
    case CmCommand::kInitQpAttributes:
      return decode_request<CmInitQpAttributes>(message, "init_qp_attr");
    case CmCommand::kSetOption:
      return decode_request<CmSetOption>(message, "set_option");
    case CmCommand::kJoinMulticast:
      return decode_request<CmJoinMulticast>(message, "join_multicast");
    case CmCommand::kLeaveMulticast:
      return decode_request<CmLeaveMulticast>(message, "leave_multicast");
    case CmCommand::kMigrateId:
      return decode_request<CmMigrateId>(message, "migrate_id");
    case CmCommand::kRestoreId:
      return decode_request<CmRestoreId>(message, "restore_id");
  }
  return fail(ErrorCode::kInvalid, "cm request: unknown command %u",
              static_cast<unsigned>(command));
}

}  // namespace

Result<CmRequest> decode_cm_request(std::span<const std::byte> message) {
  CmRequestHeader header;
  if (message.size() < sizeof header) {
    return fail(ErrorCode::kInvalid, "cm request: %zu bytes, its header alone has %zu",
                message.size(), sizeof header);
  }
  std::memcpy(&header, message.data(), sizeof header);
  if (header.version != kCmProtocolVersion) {
    return fail(ErrorCode::kInvalid,
                "cm request: version %u, this daemon speaks %u; use library and daemon of one "
                "release",
                header.version, kCmProtocolVersion);
  }
  return decode_body(header.command, message);
}

Result<CmEvent> decode_cm_event(std::span<const std::byte> message) {
  const std::optional<CmEvent> event = decode<CmEvent>(message);
  if (!event) {
    return fail(ErrorCode::kInvalid, "cm event: malformed (%zu bytes, %zu expected)",
                message.size(), sizeof(CmEvent));
  }
  return *event;
}

Result<CmReplyHeader> decode_cm_reply_header(std::span<const std::byte> message,
                                             CmCommand command) {
  CmReplyHeader header;
  if (message.size() < sizeof header) {
    return fail(ErrorCode::kInvalid, "cm reply: %zu bytes, its header alone has %zu",
                message.size(), sizeof header);
  }
  std::memcpy(&header, message.data(), sizeof header);
  if (header.command != command || header.error < 0) {
    return fail(ErrorCode::kInvalid, "cm reply: to command %u with error %d, command %u was sent",
                static_cast<unsigned>(header.command), header.error,
                static_cast<unsigned>(command));
  }
  return header;
}

template <class T>
Result<T> decode_cm_reply(std::span<const std::byte> message, CmCommand command) {
  const CmReplyHeader header = ISTHMUS_TRY(decode_cm_reply_header(message, command));
  T reply;
  if (header.error != 0 && message.size() == sizeof header) {
    reply.header = header;
    return reply;
  }
  if (message.size() != sizeof reply) {
    return fail(ErrorCode::kInvalid, "cm reply to command %u: %zu bytes, %zu expected",
                static_cast<unsigned>(command), message.size(), sizeof reply);
  }
  std::memcpy(&reply, message.data(), sizeof reply);
  if constexpr (std::is_same_v<T, CmRouteReply>) {
    if (!is_route(reply.route)) {
      return fail(ErrorCode::kInvalid, "cm reply to command %u: not a route",
                  static_cast<unsigned>(command));
    }
  }
  return reply;
}

template Result<CmPlainReply> decode_cm_reply(std::span<const std::byte>, CmCommand);
template Result<CmHandleReply> decode_cm_reply(std::span<const std::byte>, CmCommand);
template Result<CmCountReply> decode_cm_reply(std::span<const std::byte>, CmCommand);
template Result<CmRouteReply> decode_cm_reply(std::span<const std::byte>, CmCommand);
template Result<CmQpAttributesReply> decode_cm_reply(std::span<const std::byte>, CmCommand);

const CmRequestHeader& header_of(const CmRequest& request) {
  return std::visit([](const auto& r) -> const CmRequestHeader& { return r.header; }, request);
}

Result<CmAddress> cm_address_of(const sockaddr* address, std::size_t bytes) {
  CmAddress result;
  if (address == nullptr || (bytes >= sizeof address->sa_family && address->sa_family == 0)) {
    return result;
  }
  if (bytes < sizeof address->sa_family) {
    return fail(ErrorCode::kInvalid, "address of %zu bytes: too short for a family", bytes);
  }
  result.family = address->sa_family;
  if (address->sa_family == AF_INET && bytes >= sizeof(sockaddr_in)) {
    sockaddr_in v4;
    std::memcpy(&v4, address, sizeof v4);
    result.port = ntohs(v4.sin_port);
    result.ip[kV4Offset - 2] = result.ip[kV4Offset - 1] = 0xff;
    std::memcpy(result.ip.data() + kV4Offset, &v4.sin_addr, sizeof v4.sin_addr);
    return result;
  }
  if (address->sa_family == AF_INET6 && bytes >= sizeof(sockaddr_in6)) {
    sockaddr_in6 v6;
    std::memcpy(&v6, address, sizeof v6);
    result.port = ntohs(v6.sin6_port);
    result.scope_id = v6.sin6_scope_id;
    std::memcpy(result.ip.data(), &v6.sin6_addr, result.ip.size());
    return result;
  }
  if (address->sa_family == AF_IB && bytes >= sizeof(sockaddr_ib)) {
    sockaddr_ib ib;
    std::memcpy(&ib, address, sizeof ib);
    std::memcpy(result.ip.data(), &ib.sib_addr, result.ip.size());
    result.service_id = be64toh(ib.sib_sid);
    result.service_mask = be64toh(ib.sib_sid_mask);
    result.port = static_cast<std::uint16_t>(result.service_id & result.service_mask);
    result.scope_id = static_cast<std::uint32_t>(ib.sib_scope_id);
    return result;
  }
  return fail(ErrorCode::kInvalid, "address of family %u with %zu bytes: not one we know",
              address->sa_family, bytes);
}

std::size_t write_sockaddr(const CmAddress& address, sockaddr* out) {
  if (address.family == AF_INET) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(address.port);
    std::memcpy(&v4.sin_addr, address.ip.data() + kV4Offset, sizeof v4.sin_addr);
    std::memcpy(out, &v4, sizeof v4);
    return sizeof v4;
  }
  if (address.family == AF_INET6) {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(address.port);
    v6.sin6_scope_id = address.scope_id;
    std::memcpy(&v6.sin6_addr, address.ip.data(), address.ip.size());
    std::memcpy(out, &v6, sizeof v6);
    return sizeof v6;
  }
  if (address.family == AF_IB) {
    sockaddr_ib ib{};
    ib.sib_family = AF_IB;
    ib.sib_pkey = 0xffff;
    std::memcpy(&ib.sib_addr, address.ip.data(), address.ip.size());
    ib.sib_sid = htobe64(address.service_id);
    ib.sib_sid_mask = htobe64(address.service_mask);
    ib.sib_scope_id = address.scope_id;
    std::memcpy(out, &ib, sizeof ib);
    return sizeof ib;
  }
  return 0;
}

}  // namespace isthmus::attach
