// rdma_getaddrinfo: names to addresses, by the resolver of libc, and back to the heap.
//
// Everything in an rdma_addrinfo is allocated with malloc: programs free parts of it themselves and
// build lists of their own for rdma_freeaddrinfo.

#include <arpa/inet.h>
#include <netdb.h>

#include <cstdlib>
#include <cstring>
#include <memory>

#include "rdmacm/endpoint.h"
#include "rdmacm/outcome.h"
#include "rdmacm/session.h"

namespace isthmus::rdmacm {
namespace {

struct FreeInfo {
  void operator()(rdma_addrinfo* info) const { rdma_freeaddrinfo(info); }
};
using OwnedInfo = std::unique_ptr<rdma_addrinfo, FreeInfo>;

// struct sockaddr_ib of the kernel's header.
struct SockaddrIb {
  std::uint16_t family;
  std::uint16_t pkey;
  std::uint32_t flow_info;
  std::uint8_t address[16];
  std::uint64_t service_id;
  std::uint64_t service_mask;
  std::uint64_t scope_id;
};
static_assert(sizeof(SockaddrIb) == 48);

bool copy_address(const void* from, socklen_t bytes, sockaddr*& to, socklen_t& to_bytes) {
  to = static_cast<sockaddr*>(std::malloc(bytes));
  if (to == nullptr) return false;
  std::memcpy(to, from, bytes);
  to_bytes = bytes;
  return true;
}

// The AF_IB form of an IPv6 address: the GID is the address, the service is space and port.
SockaddrIb to_ib(const sockaddr_in6& from, int port_space) {
  constexpr std::uint64_t kSpaceMask = RDMA_IB_IP_PS_MASK;
  constexpr std::uint64_t kPortMask = RDMA_IB_IP_PORT_MASK;
  const std::uint16_t port = ntohs(from.sin6_port);
  SockaddrIb to{};
  to.family = kFamilyIb;
  to.pkey = 0xffff;
  to.flow_info = from.sin6_flowinfo;
  std::memcpy(to.address, &from.sin6_addr, sizeof to.address);
  to.service_id =
      htobe64((static_cast<std::uint64_t>(static_cast<unsigned>(port_space)) << 16) + port);
  to.service_mask = htobe64((port_space != 0 ? kSpaceMask : 0) | (port != 0 ? kPortMask : 0));
  to.scope_id = from.sin6_scope_id;
  return to;
}

addrinfo to_libc_hints(const rdma_addrinfo& hints) {
  addrinfo to{};
  if ((hints.ai_flags & RAI_PASSIVE) != 0) to.ai_flags |= AI_PASSIVE;
  if ((hints.ai_flags & RAI_NUMERICHOST) != 0) to.ai_flags |= AI_NUMERICHOST;
  to.ai_family = hints.ai_family == kFamilyIb ? AF_UNSPEC : hints.ai_family;
  switch (hints.ai_qp_type) {
    case IBV_QPT_RC:
    case IBV_QPT_UC:
    case IBV_QPT_XRC_SEND:
    case IBV_QPT_XRC_RECV: to.ai_socktype = SOCK_STREAM; break;
    case IBV_QPT_UD: to.ai_socktype = SOCK_DGRAM; break;
    default: break;
  }
  switch (hints.ai_port_space) {
    case RDMA_PS_TCP: to.ai_protocol = IPPROTO_TCP; break;
    case RDMA_PS_IPOIB:
    case RDMA_PS_UDP: to.ai_protocol = IPPROTO_UDP; break;
    case RDMA_PS_IB:
      if (to.ai_socktype == SOCK_STREAM) to.ai_protocol = IPPROTO_TCP;
      if (to.ai_socktype == SOCK_DGRAM) to.ai_protocol = IPPROTO_UDP;
      break;
    default: break;
  }
  return to;
}

bool fill(rdma_addrinfo& info, const rdma_addrinfo& hints, const addrinfo& found) {
  info.ai_qp_type = hints.ai_qp_type;
  if (info.ai_qp_type == 0) {
    info.ai_qp_type = found.ai_socktype == SOCK_DGRAM ? IBV_QPT_UD : IBV_QPT_RC;
  }
  info.ai_port_space = hints.ai_port_space;
  if (info.ai_port_space == 0) {
    info.ai_port_space = found.ai_protocol == IPPROTO_UDP ? RDMA_PS_UDP : RDMA_PS_TCP;
  }
  const bool passive = (found.ai_flags & AI_PASSIVE) != 0;
  if (passive) info.ai_flags = RAI_PASSIVE;
  char*& name = passive ? info.ai_src_canonname : info.ai_dst_canonname;
  if (found.ai_canonname != nullptr) name = strdup(found.ai_canonname);
  sockaddr*& address = passive ? info.ai_src_addr : info.ai_dst_addr;
  socklen_t& bytes = passive ? info.ai_src_len : info.ai_dst_len;

  const bool as_ib = (hints.ai_flags & RAI_FAMILY) != 0 && hints.ai_family == kFamilyIb &&
                     (hints.ai_flags & RAI_NUMERICHOST) != 0 && found.ai_family == AF_INET6;
  info.ai_family = as_ib ? kFamilyIb : found.ai_family;
  if (!as_ib) return copy_address(found.ai_addr, found.ai_addrlen, address, bytes);
  sockaddr_in6 v6{};
  std::memcpy(&v6, found.ai_addr, sizeof v6);
  const SockaddrIb ib = to_ib(v6, info.ai_port_space);
  return copy_address(&ib, sizeof ib, address, bytes);
}

// What libc's resolver says, in its own numbers (EAI_*), which the real library passes on.
int resolve_names(const char* node, const char* service, const rdma_addrinfo* hints,
                  rdma_addrinfo& info) {
  const rdma_addrinfo none{};
  const addrinfo libc_hints = hints != nullptr ? to_libc_hints(*hints) : addrinfo{};
  addrinfo* found = nullptr;
  const int error =
      getaddrinfo(node, service, hints != nullptr ? &libc_hints : nullptr, &found);
  if (error != 0) return error;
  const bool filled = fill(info, hints != nullptr ? *hints : none, *found);
  freeaddrinfo(found);
  return filled ? 0 : failed(ENOMEM);
}

}  // namespace
}  // namespace isthmus::rdmacm

using namespace isthmus::rdmacm;

int rdma_getaddrinfo(const char* node, const char* service, const rdma_addrinfo* hints,
                     rdma_addrinfo** result) {
  if (result == nullptr || (node == nullptr && service == nullptr && hints == nullptr)) {
    return failed(EINVAL);
  }
  // As the real library: no device, no addresses.
  if (const auto there = Session::current().ensure_daemon(); !there) return failed(there.error());
  if (hints != nullptr && (hints->ai_flags & kRaiServiceRecord) != 0) return failed(EOPNOTSUPP);
  OwnedInfo info(static_cast<rdma_addrinfo*>(std::calloc(1, sizeof(rdma_addrinfo))));
  if (info == nullptr) return failed(ENOMEM);

  if (node != nullptr || service != nullptr) {
    if (const int error = resolve_names(node, service, hints, *info); error != 0) return error;
  } else {
    info->ai_flags = hints->ai_flags;
    info->ai_family = hints->ai_family;
    info->ai_qp_type = hints->ai_qp_type;
    info->ai_port_space = hints->ai_port_space;
    if (hints->ai_dst_len != 0 && !copy_address(hints->ai_dst_addr, hints->ai_dst_len,
                                                info->ai_dst_addr, info->ai_dst_len)) {
      return failed(ENOMEM);
    }
  }
  if (info->ai_src_len == 0 && hints != nullptr && hints->ai_src_len != 0 &&
      !copy_address(hints->ai_src_addr, hints->ai_src_len, info->ai_src_addr, info->ai_src_len)) {
    return failed(ENOMEM);
  }
  *result = info.release();
  return 0;
}

void rdma_freeaddrinfo(rdma_addrinfo* info) {
  while (info != nullptr) {
    rdma_addrinfo* const next = info->ai_next;
    std::free(info->ai_connect);
    std::free(info->ai_route);
    std::free(info->ai_src_canonname);
    std::free(info->ai_dst_canonname);
    std::free(info->ai_src_addr);
    std::free(info->ai_dst_addr);
    std::free(info);
    info = next;
  }
}

// Resolving by service records needs a subnet administrator, which no RoCE network has; names are
// resolved at once and the answer is an event.
int rdma_resolve_addrinfo(rdma_cm_id* id, const char* node, const char* service,
                          const rdma_addrinfo* hints) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  if (hints != nullptr && (hints->ai_flags & kRaiServiceRecord) != 0) return failed(EOPNOTSUPP);
  rdma_addrinfo* info = nullptr;
  const int error = rdma_getaddrinfo(node, service, hints, &info);
  if (error == 0) {
    if ((*identifier)->resolved != nullptr) rdma_freeaddrinfo((*identifier)->resolved);
    (*identifier)->resolved = info;
  }
  QueuedEvent event;
  event.wire.cookie = (*identifier)->cookie;
  event.wire.status = error == 0 ? 0 : -ENOENT;
  event.type = error == 0 ? kEventAddressInfoResolved : kEventAddressInfoError;
  Channel::of(id->channel).put(event);
  return outcome(complete(**identifier));
}

int rdma_query_addrinfo(rdma_cm_id* id, rdma_addrinfo** info) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  if (info == nullptr) return failed(EINVAL);
  if ((*identifier)->resolved == nullptr) return failed(ENOENT);
  *info = (*identifier)->resolved;
  (*identifier)->resolved = nullptr;
  return 0;
}
