#include "os/address_watch.h"

#include <linux/rtnetlink.h>
#include <sys/socket.h>

namespace isthmus::os {

Result<Fd> watch_addresses() {
  Fd fd{socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE)};
  if (!fd) return fail_errno(errno, "watch the network interfaces");
  sockaddr_nl address{};
  address.nl_family = AF_NETLINK;
  address.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
  // SAFETY: the sockets interface wants every address by the common base type.
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, "watch the network interfaces");
  }
  return fd;
}

void drain_address_watch(const Fd& watch) {
  char buffer[4096];
  // An overrun (ENOBUFS) also means: look again.
  while (recv(watch.get(), buffer, sizeof buffer, MSG_DONTWAIT) > 0 || errno == ENOBUFS) {
    if (errno == ENOBUFS) errno = 0;
  }
}

}  // namespace isthmus::os
