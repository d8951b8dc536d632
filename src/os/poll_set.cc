#include "os/poll_set.h"

#include "os/clock.h"
#include "os/epoll.h"

namespace isthmus::os {

Result<int> poll_set(std::span<pollfd> items, std::uint64_t timeout_ns) {
  const bool for_ever = timeout_ns == kWaitForEver;
  timespec timeout{};
  if (!for_ever) {
    timeout.tv_sec = static_cast<time_t>(timeout_ns / kNsPerSecond);
    timeout.tv_nsec = static_cast<long>(timeout_ns % kNsPerSecond);
  }
  const int ready = ppoll(items.data(), items.size(), for_ever ? nullptr : &timeout, nullptr);
  if (ready < 0 && errno == EINTR) {
    return std::unexpected(Error{static_cast<ErrorCode>(EINTR), "a signal ended the wait"});
  }
  if (ready < 0) return fail_errno(errno, "wait for descriptors");
  return ready;
}

}  // namespace isthmus::os
