// Our address type from and to the kernel's. For the files of os alone.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include <cstdint>

#include "wire/ip.h"

namespace isthmus::os {

struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t bytes = 0;

  // SAFETY: the sockets interface wants every address by the common base type.
  const sockaddr* generic() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// `scope` is the interface index, needed for link-local IPv6 addresses.
SocketAddress socket_address_of(const wire::IpAddress& address, std::uint16_t port,
                                unsigned scope = 0);

// Of AF_INET and AF_INET6; "::" for anything else.
wire::IpAddress ip_address_of(const sockaddr& address);
std::uint16_t port_of(const sockaddr& address);

wire::IpAddress ip_address_of(const in_addr& address);
wire::IpAddress ip_address_of(const in6_addr& address);

}  // namespace isthmus::os
