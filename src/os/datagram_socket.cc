#include "os/datagram_socket.h"

#include <sys/uio.h>

namespace isthmus::os {
namespace {

// SAFETY: the sockets interface wants every address by the common base type.
const sockaddr* generic(const DatagramAddress& address) {
  return reinterpret_cast<const sockaddr*>(&address.storage);
}
sockaddr* generic(DatagramAddress& address) {
  return reinterpret_cast<sockaddr*>(&address.storage);
}

Result<DatagramAddress> name_of(int fd) {
  DatagramAddress address{.bytes = sizeof(sockaddr_storage)};
  if (getsockname(fd, generic(address), &address.bytes) != 0) {
    return fail_errno(errno, "name a datagram socket");
  }
  return address;
}

}  // namespace

Result<std::unique_ptr<DatagramSocket>> DatagramSocket::create(int domain) {
  Fd fd{socket(domain, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!fd) return fail_errno(errno, "create a datagram socket");
  return std::unique_ptr<DatagramSocket>(new DatagramSocket(std::move(fd)));
}

Result<void> DatagramSocket::set_local_address(const DatagramAddress& address) {
  if (bind(fd_.get(), generic(address), address.bytes) != 0) {
    return fail_errno(errno, "bind a datagram socket");
  }
  return {};
}

Result<DatagramAddress> DatagramSocket::local_address() const { return name_of(fd_.get()); }

Result<DatagramAddress> DatagramSocket::source_towards(const DatagramAddress& destination) {
  const Fd probe{socket(destination.storage.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
  if (!probe) return fail_errno(errno, "create a datagram socket");
  if (connect(probe.get(), generic(destination), destination.bytes) != 0) {
    return fail_errno(errno, "find a way to an address");
  }
  return name_of(probe.get());
}

Result<void> DatagramSocket::send_to(const DatagramAddress& destination,
                                     std::span<const iovec> parts) {
  msghdr message{};
  // SAFETY: sendmsg writes through neither pointer.
  message.msg_name = const_cast<sockaddr_storage*>(&destination.storage);
  message.msg_namelen = destination.bytes;
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  while (sendmsg(fd_.get(), &message, MSG_NOSIGNAL) < 0) {
    if (errno != EINTR) return fail_errno(errno, "send a datagram");
  }
  return {};
}

Result<std::size_t> DatagramSocket::receive(std::span<std::byte> buffer, DatagramAddress& from) {
  for (;;) {
    from.bytes = sizeof from.storage;
    const ssize_t count =
        recvfrom(fd_.get(), buffer.data(), buffer.size(), 0, generic(from), &from.bytes);
    if (count >= 0) return static_cast<std::size_t>(count);
    if (errno != EINTR) return fail_errno(errno, "receive a datagram");
  }
}

Result<void> DatagramSocket::set_option(int level, int name, std::span<const std::byte> value) {
  if (setsockopt(fd_.get(), level, name, value.data(), static_cast<socklen_t>(value.size())) != 0) {
    return fail_errno(errno, "set an option of a datagram socket");
  }
  return {};
}

Result<socklen_t> DatagramSocket::get_option(int level, int name,
                                             std::span<std::byte> value) const {
  auto bytes = static_cast<socklen_t>(value.size());
  if (getsockopt(fd_.get(), level, name, value.data(), &bytes) != 0) {
    return fail_errno(errno, "read an option of a datagram socket");
  }
  return bytes;
}

}  // namespace isthmus::os
