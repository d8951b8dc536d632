#include "os/route_probe.h"

#include "os/socket_address.h"

namespace isthmus::os {
namespace {

constexpr std::uint16_t kAnyPort = 9;  // Discard; connecting sends nothing anyway.

}  // namespace

Result<RouteProbe> RouteProbe::create() {
  Fd v4{socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  if (!v4) return fail_errno(errno, "create a UDP socket");
  Fd v6{socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  return RouteProbe{std::move(v4), std::move(v6)};
}

Result<wire::IpAddress> RouteProbe::source_for(const wire::IpAddress& destination) const {
  const Fd& probe = destination.is_v4() ? v4_ : v6_;
  if (!probe) return fail(ErrorCode::kUnreachable, "this host has no IPv6");
  // A socket that is connected to an address of this host would be bound to it for ever otherwise.
  sockaddr nothing{};
  nothing.sa_family = AF_UNSPEC;
  connect(probe.get(), &nothing, sizeof nothing);
  const SocketAddress to = socket_address_of(destination, kAnyPort);
  if (connect(probe.get(), to.generic(), to.bytes) != 0) {
    return fail_errno(errno, "find a route to " + destination.to_string());
  }
  SocketAddress from;
  from.bytes = sizeof from.storage;
  // SAFETY: the sockets interface wants every address by the common base type.
  auto* generic = reinterpret_cast<sockaddr*>(&from.storage);
  if (getsockname(probe.get(), generic, &from.bytes) != 0) {
    return fail_errno(errno, "ask for the source address to " + destination.to_string());
  }
  return ip_address_of(*generic);
}

}  // namespace isthmus::os
