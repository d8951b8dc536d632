#include "os/unix_peer.h"

#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>

#include "os/fd.h"

namespace isthmus::os {

Result<std::int32_t> unix_peer_process(const std::string& path, UnixSocketType type) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return fail(ErrorCode::kInvalid, "the socket path %s is longer than %zu bytes", path.c_str(),
                sizeof(address.sun_path) - 1);
  }
  path.copy(address.sun_path, path.size());
  const int kind = type == UnixSocketType::kStream ? SOCK_STREAM : SOCK_SEQPACKET;
  const Fd fd{socket(AF_UNIX, kind | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!fd) return fail_errno(errno, "making a local socket");
  // SAFETY: the sockets interface wants every address by the common base type.
  if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return fail_errno(errno, "connecting to " + path);
  }
  ucred peer{};
  socklen_t bytes = sizeof(peer);
  if (getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &bytes) != 0) {
    return fail_errno(errno, "asking who listens at " + path);
  }
  return peer.pid;
}

}  // namespace isthmus::os
