#include "os/timer_fd.h"

#include <sys/timerfd.h>

#include "os/clock.h"

namespace isthmus::os {

Result<Fd> create_timer_fd() {
  Fd fd{timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK)};
  if (!fd) return fail_errno(errno, "create a timer");
  return fd;
}

void set_timer(const Fd& timer, std::uint64_t delay_ns) {
  itimerspec when{};
  when.it_value.tv_sec = static_cast<time_t>(delay_ns / kNsPerSecond);
  when.it_value.tv_nsec = static_cast<long>(delay_ns % kNsPerSecond);
  timerfd_settime(timer.get(), 0, &when, nullptr);
}

}  // namespace isthmus::os
