#include "os/epoll.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>

#include "os/clock.h"

namespace isthmus::os {
namespace {

constexpr std::size_t kMaxEventsOfOneWait = 64;

static_assert(static_cast<std::uint32_t>(Interest::kRead) == EPOLLIN);
static_assert(static_cast<std::uint32_t>(Interest::kWrite) == EPOLLOUT);

epoll_event event_of(std::uint64_t tag, Interest interest) {
  epoll_event event{};
  event.events = static_cast<std::uint32_t>(interest);
  event.data.u64 = tag;
  return event;
}

// Rounded up: waking a moment early would mean a second, useless turn.
int milliseconds_of(std::uint64_t timeout_ns) {
  if (timeout_ns == kWaitForEver) return -1;
  constexpr std::uint64_t kLongestMs = 3'600'000;
  const std::uint64_t whole = timeout_ns / kNsPerMs + (timeout_ns % kNsPerMs != 0 ? 1 : 0);
  return static_cast<int>(std::min(whole, kLongestMs));
}

int wait_precisely(int fd, epoll_event* events, int count, std::uint64_t timeout_ns) {
#if defined(__GLIBC__) && (__GLIBC__ > 2 || (__GLIBC__ == 2 && __GLIBC_MINOR__ >= 35))
  if (timeout_ns != kWaitForEver && timeout_ns != 0) {
    const timespec timeout{static_cast<time_t>(timeout_ns / kNsPerSecond),
                           static_cast<long>(timeout_ns % kNsPerSecond)};
    const int result = epoll_pwait2(fd, events, count, &timeout, nullptr);
    if (result >= 0 || errno != ENOSYS) return result;
  }
#endif
  return epoll_wait(fd, events, count, milliseconds_of(timeout_ns));
}

}  // namespace

Result<std::unique_ptr<Epoll>> Epoll::create() {
  Fd fd{epoll_create1(EPOLL_CLOEXEC)};
  if (!fd) return fail_errno(errno, "create an epoll set");
  return std::unique_ptr<Epoll>(new Epoll(std::move(fd)));
}

Result<void> Epoll::add(int fd, std::uint64_t tag, Interest interest) {
  epoll_event event = event_of(tag, interest);
  if (epoll_ctl(fd_.get(), EPOLL_CTL_ADD, fd, &event) != 0) {
    return fail_errno(errno, "watch a file descriptor");
  }
  return {};
}

Result<void> Epoll::modify(int fd, std::uint64_t tag, Interest interest) {
  epoll_event event = event_of(tag, interest);
  if (epoll_ctl(fd_.get(), EPOLL_CTL_MOD, fd, &event) != 0) {
    return fail_errno(errno, "change the watch of a file descriptor");
  }
  return {};
}

void Epoll::remove(int fd) { epoll_ctl(fd_.get(), EPOLL_CTL_DEL, fd, nullptr); }

std::span<const Readiness> Epoll::wait(std::span<Readiness> out, std::uint64_t timeout_ns) {
  std::array<epoll_event, kMaxEventsOfOneWait> events;
  const int room = static_cast<int>(std::min(out.size(), events.size()));
  const int count = wait_precisely(fd_.get(), events.data(), room, timeout_ns);
  if (count <= 0) return {};
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    out[static_cast<std::size_t>(i)] = Readiness{
        .tag = event.data.u64,
        .readable = (event.events & EPOLLIN) != 0,
        .writable = (event.events & EPOLLOUT) != 0,
        .closed = (event.events & (EPOLLHUP | EPOLLERR)) != 0,
    };
  }
  return out.first(static_cast<std::size_t>(count));
}

}  // namespace isthmus::os
