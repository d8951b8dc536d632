#include "os/event_fd.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstdint>

namespace isthmus::os {

Result<Fd> create_event_fd(EventFdKind kind) {
  const int semaphore = kind == EventFdKind::kSemaphore ? EFD_SEMAPHORE : 0;
  Fd fd{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK | semaphore)};
  if (!fd) return fail_errno(errno, "create an event counter");
  return fd;
}

void signal(int fd) {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof one);
}

void drain(int fd) {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t taken = ::read(fd, &count, sizeof count);
}

}  // namespace isthmus::os
