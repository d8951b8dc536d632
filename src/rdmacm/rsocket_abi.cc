// The functions of rsocket.h: the sockets interface, by descriptor.

#include <fcntl.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstdarg>
#include <cstring>

#include "rdmacm/abi.h"
#include "rdmacm/datagram_rsocket.h"
#include "rdmacm/endpoint.h"
#include "rdmacm/outcome.h"
#include "rdmacm/session.h"
#include "rdmacm/socket_table.h"
#include "rdmacm/stream_socket.h"

namespace isthmus::rdmacm {
namespace {

std::shared_ptr<Socket> find(int number) {
  auto socket = SocketTable::instance().find(number);
  if (socket == nullptr) errno = EBADF;
  return socket;
}

Result<CmAddress> address_from(const sockaddr* address, socklen_t bytes) {
  return attach::cm_address_of(address, bytes);
}

// As the kernel: as much as fits, and how much there was.
void give_address(const CmAddress& from, sockaddr* to, socklen_t* bytes) {
  if (to == nullptr || bytes == nullptr) return;
  sockaddr_storage storage{};
  // SAFETY: the sockets interface wants every address by the common base type.
  const auto length = static_cast<socklen_t>(
      attach::write_sockaddr(from, reinterpret_cast<sockaddr*>(&storage)));
  std::memcpy(to, &storage, std::min(length, *bytes));
  *bytes = length;
}

ssize_t count_or_error(const Result<std::size_t>& result) {
  return result ? static_cast<ssize_t>(*result) : failed(result.error());
}

ssize_t receive(int number, std::span<const iovec> into, int flags, sockaddr* from,
                socklen_t* from_bytes) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  CmAddress sender;
  const auto count = socket->receive(into, flags, from != nullptr ? &sender : nullptr);
  if (count && from != nullptr) give_address(sender, from, from_bytes);
  return count_or_error(count);
}

ssize_t send(int number, std::span<const iovec> data, int flags, const sockaddr* to,
             socklen_t to_bytes) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  if (to == nullptr) return count_or_error(socket->send(data, flags, nullptr));
  const auto destination = address_from(to, to_bytes);
  if (!destination) return failed(EINVAL);
  return count_or_error(socket->send(data, flags, &*destination));
}

int give_option(const std::shared_ptr<Socket>& socket, int level, int name, void* value,
                socklen_t* bytes) {
  if (value == nullptr || bytes == nullptr) return failed(EFAULT);
  const auto count = socket->get_option(level, name, {static_cast<std::byte*>(value), *bytes});
  if (!count) return failed(count.error());
  *bytes = *count;
  return 0;
}

iovec single(const void* bytes, std::size_t count) {
  // SAFETY: sending reads only.
  return {.iov_base = const_cast<void*>(bytes), .iov_len = count};
}

}  // namespace
}  // namespace isthmus::rdmacm

using namespace isthmus::rdmacm;

int rsocket(int domain, int type, int protocol) {
  const int kind = type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
  const bool stream = kind == SOCK_STREAM && (protocol == 0 || protocol == IPPROTO_TCP);
  const bool datagram = kind == SOCK_DGRAM && (protocol == 0 || protocol == IPPROTO_UDP);
  if ((domain != AF_INET && domain != AF_INET6 && domain != kFamilyIb) || !(stream || datagram)) {
    return failed(ENOTSUP);
  }
  std::shared_ptr<Socket> socket;
  if (stream) {
    auto made = StreamSocket::create(Session::current(), domain);
    if (!made) return failed(made.error());
    socket = std::move(*made);
  } else {
    auto made = DatagramRsocket::create(Session::current(), domain);
    if (!made) return failed(made.error());
    socket = std::move(*made);
  }
  socket->status_flags = (type & SOCK_NONBLOCK) != 0 ? O_NONBLOCK : 0;
  socket->descriptor_flags = (type & SOCK_CLOEXEC) != 0 ? FD_CLOEXEC : 0;
  const int number = socket->number();
  SocketTable::instance().add(std::move(socket));
  return number;
}

int rbind(int number, const sockaddr* address, socklen_t bytes) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  const auto wanted = address_from(address, bytes);
  if (!wanted || wanted->family == 0) return failed(EINVAL);
  return outcome(socket->bind_to(*wanted));
}

int rlisten(int number, int backlog) {
  const auto socket = find(number);
  return socket == nullptr ? -1 : outcome(socket->start_listening(backlog));
}

int raccept(int number, sockaddr* address, socklen_t* bytes) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  CmAddress peer;
  const auto accepted = socket->take_request(peer);
  if (!accepted) return failed(accepted.error());
  give_address(peer, address, bytes);
  const int accepted_number = (*accepted)->number();
  SocketTable::instance().add(*accepted);
  return accepted_number;
}

int rconnect(int number, const sockaddr* address, socklen_t bytes) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  const auto peer = address_from(address, bytes);
  if (!peer || peer->family == 0) return failed(EINVAL);
  return outcome(socket->connect_to(*peer));
}

int rshutdown(int number, int how) {
  const auto socket = find(number);
  return socket == nullptr ? -1 : outcome(socket->shut_down(how));
}

int rclose(int number) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  socket->give_up();
  // Out of the table last: the number is free for others only when the descriptor is closed.
  SocketTable::instance().remove(number);
  return 0;
}

ssize_t rrecv(int number, void* bytes, size_t count, int flags) {
  const iovec part = single(bytes, count);
  return receive(number, {&part, 1}, flags, nullptr, nullptr);
}

ssize_t rrecvfrom(int number, void* bytes, size_t count, int flags, sockaddr* from,
                  socklen_t* from_bytes) {
  const iovec part = single(bytes, count);
  return receive(number, {&part, 1}, flags, from, from_bytes);
}

ssize_t rrecvmsg(int number, msghdr* message, int flags) {
  if (message->msg_control != nullptr && message->msg_controllen != 0) return failed(ENOTSUP);
  message->msg_flags = 0;
  return receive(number, {message->msg_iov, message->msg_iovlen}, flags,
                 static_cast<sockaddr*>(message->msg_name), &message->msg_namelen);
}

ssize_t rread(int number, void* bytes, size_t count) { return rrecv(number, bytes, count, 0); }

ssize_t rreadv(int number, const iovec* parts, int count) {
  return receive(number, {parts, static_cast<std::size_t>(count)}, 0, nullptr, nullptr);
}

ssize_t rsend(int number, const void* bytes, size_t count, int flags) {
  const iovec part = single(bytes, count);
  return send(number, {&part, 1}, flags, nullptr, 0);
}

ssize_t rsendto(int number, const void* bytes, size_t count, int flags, const sockaddr* to,
                socklen_t to_bytes) {
  const iovec part = single(bytes, count);
  return send(number, {&part, 1}, flags, to, to_bytes);
}

ssize_t rsendmsg(int number, const msghdr* message, int flags) {
  if (message->msg_control != nullptr && message->msg_controllen != 0) return failed(ENOTSUP);
  return send(number, {message->msg_iov, message->msg_iovlen}, flags,
              static_cast<const sockaddr*>(message->msg_name), message->msg_namelen);
}

ssize_t rwrite(int number, const void* bytes, size_t count) {
  return rsend(number, bytes, count, 0);
}

ssize_t rwritev(int number, const iovec* parts, int count) {
  return send(number, {parts, static_cast<std::size_t>(count)}, 0, nullptr, 0);
}

int rgetpeername(int number, sockaddr* address, socklen_t* bytes) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  const auto peer = socket->peer_address();
  if (!peer) return failed(peer.error());
  give_address(*peer, address, bytes);
  return 0;
}

int rgetsockname(int number, sockaddr* address, socklen_t* bytes) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  const auto local = socket->local_address();
  if (!local) return failed(local.error());
  give_address(*local, address, bytes);
  return 0;
}

int rsetsockopt(int number, int level, int name, const void* value, socklen_t bytes) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  if (value == nullptr) return failed(EFAULT);
  return outcome(
      socket->set_option(level, name, {static_cast<const std::byte*>(value), bytes}));
}

int rgetsockopt(int number, int level, int name, void* value, socklen_t* bytes) {
  const auto socket = find(number);
  return socket == nullptr ? -1 : give_option(socket, level, name, value, bytes);
}

int rfcntl(int number, int command, ...) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  va_list arguments;
  va_start(arguments, command);
  const int argument = command == F_SETFL || command == F_SETFD ? va_arg(arguments, int) : 0;
  va_end(arguments);
  switch (command) {
    case F_GETFL: return socket->status_flags;
    case F_SETFL: socket->status_flags = argument; return 0;
    case F_GETFD: return socket->descriptor_flags;
    case F_SETFD: socket->descriptor_flags = argument; return 0;
    default: return failed(ENOTSUP);
  }
}

off_t riomap(int number, void* buffer, size_t bytes, int protection, int, off_t offset) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  const auto mapped =
      socket->map_memory({static_cast<std::byte*>(buffer), bytes}, protection, offset);
  return mapped ? *mapped : failed(mapped.error());
}

int riounmap(int number, void* buffer, size_t bytes) {
  const auto socket = find(number);
  if (socket == nullptr) return -1;
  return outcome(socket->unmap_memory({static_cast<std::byte*>(buffer), bytes}));
}

size_t riowrite(int number, const void* buffer, size_t count, off_t offset, int flags) {
  const auto socket = find(number);
  if (socket == nullptr) return static_cast<size_t>(-1);
  const auto written = socket->write_mapped({static_cast<const std::byte*>(buffer), count},
                                            static_cast<std::uint64_t>(offset), flags);
  return static_cast<size_t>(count_or_error(written));
}
