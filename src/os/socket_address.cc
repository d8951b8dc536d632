#include "os/socket_address.h"

#include <cstring>
#include <span>

namespace isthmus::os {

SocketAddress socket_address_of(const wire::IpAddress& address, std::uint16_t port,
                                unsigned scope) {
  SocketAddress result;
  if (address.is_v4()) {
    sockaddr_in v4{};
    v4.sin_family = AF_INET;
    v4.sin_port = htons(port);
    v4.sin_addr.s_addr = htonl(address.v4());
    std::memcpy(&result.storage, &v4, sizeof v4);
    result.bytes = sizeof v4;
  } else {
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port);
    v6.sin6_scope_id = scope;
    std::memcpy(&v6.sin6_addr, address.bytes().data(), sizeof v6.sin6_addr);
    std::memcpy(&result.storage, &v6, sizeof v6);
    result.bytes = sizeof v6;
  }
  return result;
}

wire::IpAddress ip_address_of(const in_addr& address) {
  return wire::IpAddress::from_v4(ntohl(address.s_addr));
}

wire::IpAddress ip_address_of(const in6_addr& address) {
  return wire::IpAddress::from_bytes(
      std::span<const std::byte, 16>(reinterpret_cast<const std::byte*>(&address), 16));
}

// SAFETY: in both functions the family says which structure it is.
wire::IpAddress ip_address_of(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    return ip_address_of(reinterpret_cast<const sockaddr_in&>(address).sin_addr);
  }
  if (address.sa_family == AF_INET6) {
    return ip_address_of(reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
  }
  return {};
}

std::uint16_t port_of(const sockaddr& address) {
  if (address.sa_family == AF_INET) {
    return ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port);
  }
  if (address.sa_family == AF_INET6) {
    return ntohs(reinterpret_cast<const sockaddr_in6&>(address).sin6_port);
  }
  return 0;
}

}  // namespace isthmus::os
