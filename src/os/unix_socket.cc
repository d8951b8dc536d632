#include "os/unix_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

#include "base/assert.h"
#include "os/epoll.h"
#include "os/poll.h"

namespace isthmus::os {
namespace {

constexpr int kBacklog = 128;
constexpr std::size_t kControlBytes = CMSG_SPACE(sizeof(int) * kMaxPassedFds);

Result<sockaddr_un> address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof address.sun_path) {
    return fail(ErrorCode::kInvalid, "socket path %s: has %zu bytes, 1 to %zu are possible",
                path.c_str(), path.size(), sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

// SAFETY: the sockets interface wants every address by the common base type.
const sockaddr* as_generic(const sockaddr_un& address) {
  return reinterpret_cast<const sockaddr*>(&address);
}

std::vector<Fd> take_fds(msghdr& message) {
  std::vector<Fd> fds;
  for (cmsghdr* item = CMSG_FIRSTHDR(&message); item; item = CMSG_NXTHDR(&message, item)) {
    if (item->cmsg_level != SOL_SOCKET || item->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (item->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int number = -1;
      std::memcpy(&number, CMSG_DATA(item) + i * sizeof(int), sizeof(int));
      fds.emplace_back(number);
    }
  }
  return fds;
}

}  // namespace

Result<Fd> listen_unix(const std::string& path, UnixAccess access) {
  const sockaddr_un address = ISTHMUS_TRY(address_of(path));
  Fd socket_fd{socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!socket_fd) return fail_errno(errno, "create a local socket");
  // The mode of the open socket is that of the file made by bind, so there is no moment at which
  // somebody else could connect.
  if (fchmod(socket_fd.get(), access == UnixAccess::kOwner ? 0600 : 0666) != 0) {
    return fail_errno(errno, "set the permissions of a local socket");
  }
  if (bind(socket_fd.get(), as_generic(address), sizeof address) != 0) {
    return fail_errno(errno, "listen at " + path);
  }
  if (access == UnixAccess::kEverybody && chmod(path.c_str(), 0666) != 0) {  // The umask cut it.
    return fail_errno(errno, "open " + path + " to everybody");
  }
  if (listen(socket_fd.get(), kBacklog) != 0) return fail_errno(errno, "listen at " + path);
  return socket_fd;
}

Result<Fd> connect_unix(const std::string& path) {
  const sockaddr_un address = ISTHMUS_TRY(address_of(path));
  Fd socket_fd{socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)};
  if (!socket_fd) return fail_errno(errno, "create a local socket");
  if (connect(socket_fd.get(), as_generic(address), sizeof address) != 0) {
    return fail_errno(errno, "connect to " + path);
  }
  fcntl(socket_fd.get(), F_SETFL, O_NONBLOCK);
  return socket_fd;
}

Result<Fd> accept_unix(const Fd& listener) {
  Fd accepted{accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK)};
  if (!accepted) return fail_errno(errno, "accept a local connection");
  return accepted;
}

Result<std::pair<Fd, Fd>> unix_socket_pair() {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    return fail_errno(errno, "create a pair of local sockets");
  }
  return std::pair{Fd{ends[0]}, Fd{ends[1]}};
}

Result<void> send_message(const Fd& socket, std::span<const std::byte> bytes,
                          std::span<const int> fds, Wait wait) {
  ISTHMUS_ASSERT(fds.size() <= kMaxPassedFds);
  // SAFETY: sendmsg does not write through the pointer.
  iovec segment{const_cast<std::byte*>(bytes.data()), bytes.size()};
  alignas(cmsghdr) char control[kControlBytes] = {};
  msghdr message{};
  message.msg_iov = &segment;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* item = CMSG_FIRSTHDR(&message);
    item->cmsg_level = SOL_SOCKET;
    item->cmsg_type = SCM_RIGHTS;
    item->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(item), fds.data(), fds.size_bytes());
  }
  while (sendmsg(socket.get(), &message, MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    if (errno != EAGAIN || wait == Wait::kNo) return fail_errno(errno, "send a local message");
    pollfd item{socket.get(), POLLOUT, 0};
    poll(&item, 1, -1);
  }
  return {};
}

Result<ReceivedMessage> receive_message(const Fd& socket, std::span<std::byte> buffer, Wait wait) {
  iovec segment{buffer.data(), buffer.size()};
  alignas(cmsghdr) char control[kControlBytes];
  msghdr message{};
  message.msg_iov = &segment;
  message.msg_iovlen = 1;
  ssize_t count = -1;
  while (true) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    count = recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (count >= 0) break;
    if (errno == EINTR) continue;
    if (errno != EAGAIN || wait == Wait::kNo) return fail_errno(errno, "receive a local message");
    const int waited_for = socket.get();
    wait_readable({&waited_for, 1}, kWaitForEver);
  }
  ReceivedMessage received{static_cast<std::size_t>(count), take_fds(message)};
  if (count == 0) return fail(ErrorCode::kClosed, "the other side closed the connection");
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return fail(ErrorCode::kInvalid, "a local message was longer than %zu bytes", buffer.size());
  }
  return received;
}

Result<PeerCredentials> peer_credentials(const Fd& socket) {
  ucred credentials{};
  socklen_t size = sizeof credentials;
  if (getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) {
    return fail_errno(errno, "ask who is at the other end of a local socket");
  }
  return PeerCredentials{credentials.pid, credentials.uid, credentials.gid};
}

}  // namespace isthmus::os
