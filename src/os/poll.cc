#include "os/poll.h"

#include <fcntl.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/assert.h"
#include "os/clock.h"
#include "os/epoll.h"

namespace isthmus::os {

std::uint32_t wait_readable(std::span<const int> fds, std::uint64_t timeout_ns) {
  ISTHMUS_ASSERT(fds.size() <= kMaxPolledDescriptors);
  std::array<pollfd, kMaxPolledDescriptors> waits{};
  std::ranges::transform(fds, waits.begin(), [](int fd) { return pollfd{fd, POLLIN, 0}; });

  const bool for_ever = timeout_ns == kWaitForEver;
  const std::uint64_t give_up_ns = for_ever ? 0 : now_ns() + timeout_ns;
  while (true) {
    timespec timeout{};
    if (!for_ever) {
      const std::uint64_t now = now_ns();
      const std::uint64_t left = give_up_ns > now ? give_up_ns - now : 0;
      timeout.tv_sec = static_cast<time_t>(left / kNsPerSecond);
      timeout.tv_nsec = static_cast<long>(left % kNsPerSecond);
    }
    const int ready = ppoll(waits.data(), fds.size(), for_ever ? nullptr : &timeout, nullptr);
    if (ready < 0 && errno == EINTR) continue;
    std::uint32_t readable = 0;
    for (std::size_t i = 0; i < fds.size(); ++i) {
      // Another error (no memory for the wait) cannot be slept on: let the caller look again.
      if (ready < 0 || waits[i].revents != 0) readable |= 1u << i;
    }
    return readable;
  }
}

bool is_blocking(int fd) { return (fcntl(fd, F_GETFL) & O_NONBLOCK) == 0; }

Result<void> set_blocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) != 0) {
    return fail_errno(errno, "make a descriptor blocking");
  }
  return {};
}

Result<void> set_non_blocking(int fd) {
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return fail_errno(errno, "make a descriptor return at once");
  }
  return {};
}

}  // namespace isthmus::os
