#include "preload/interpose/far_descriptors.h"

#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "os/low_descriptors.h"
#include "preload/interpose/far_runtime.h"

namespace isthmus::preload {
namespace {

constexpr int kMostNumber = 4096;
constinit std::array<std::atomic<bool>, kMostNumber> protected_numbers{};
constinit std::atomic<int> lowest{kMostNumber};  // Of those.

bool is_protected(int number) {
  return number >= lowest.load(std::memory_order_relaxed) && number < kMostNumber &&
         runtime_depth == 0 &&
         protected_numbers[static_cast<std::size_t>(number)].load(std::memory_order_relaxed);
}

// Closes what the program may close, in the runs between what it may not.
template <class CloseRun>
int close_runs(unsigned first, unsigned last, CloseRun&& close_run) {
  for (unsigned start = first;;) {
    unsigned guarded = std::max(start, static_cast<unsigned>(lowest.load()));
    while (guarded < kMostNumber && !is_protected(static_cast<int>(guarded))) ++guarded;
    if (guarded >= kMostNumber || guarded > last) return close_run(start, last);
    if (guarded > start && close_run(start, guarded - 1) != 0) return -1;
    if (guarded == last) return 0;
    start = guarded + 1;
  }
}

}  // namespace

void protect_descriptors(std::span<const int> before) {
  for (const int number : os::open_descriptors()) {
    if (number >= kMostNumber || std::ranges::binary_search(before, number)) continue;
    protected_numbers[static_cast<std::size_t>(number)] = true;
    lowest = std::min(lowest.load(), number);
  }
}

// What a thread of the runtime opens, at any time; closing it there takes the mark off.
int protect_late(int number) {
  if (runtime_depth == 0) return number;
  const int high = os::moved_high(number);
  if (high >= 0 && high < kMostNumber) {
    protected_numbers[static_cast<std::size_t>(high)] = true;
    lowest = std::min(lowest.load(), high);
  }
  return high;
}

// Those that come with a message of the daemon's.
void protect_received(msghdr& message) {
  for (cmsghdr* part = CMSG_FIRSTHDR(&message); part != nullptr;
       part = CMSG_NXTHDR(&message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t index = 0; index < count; ++index) {
      unsigned char* const place = CMSG_DATA(part) + index * sizeof(int);
      int number = -1;
      std::memcpy(&number, place, sizeof number);
      number = protect_late(number);
      std::memcpy(place, &number, sizeof number);
    }
  }
}

void forget(int number) {
  if (runtime_depth > 0 && number >= 0 && number < kMostNumber) {
    protected_numbers[static_cast<std::size_t>(number)] = false;
  }
}

}  // namespace isthmus::preload

using isthmus::preload::close_runs;
using isthmus::preload::forget;
using isthmus::preload::protect_late;
using isthmus::preload::protect_received;
using isthmus::preload::is_protected;

namespace {

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

int refuse() {
  errno = EBADF;
  return -1;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int close(int number) {
  static auto* const real = next<int(int)>("close");
  if (is_protected(number)) return refuse();
  forget(number);
  return real(number);
}

int epoll_create1(int flags) noexcept {
  static auto* const real = next<int(int)>("epoll_create1");
  return protect_late(real(flags));
}

int eventfd(unsigned count, int flags) noexcept {
  static auto* const real = next<int(unsigned, int)>("eventfd");
  return protect_late(real(count, flags));
}

int timerfd_create(int clock, int flags) noexcept {
  static auto* const real = next<int(int, int)>("timerfd_create");
  return protect_late(real(clock, flags));
}

int socket(int family, int type, int protocol) noexcept {
  static auto* const real = next<int(int, int, int)>("socket");
  return protect_late(real(family, type, protocol));
}

int memfd_create(const char* name, unsigned flags) noexcept {
  static auto* const real = next<int(const char*, unsigned)>("memfd_create");
  return protect_late(real(name, flags));
}

ssize_t recvmsg(int from, msghdr* message, int flags) {
  static auto* const real = next<ssize_t(int, msghdr*, int)>("recvmsg");
  const ssize_t bytes = real(from, message, flags);
  if (bytes >= 0 && isthmus::preload::runtime_depth > 0) protect_received(*message);
  return bytes;
}

int close_range(unsigned first, unsigned last, int flags) noexcept {
  static auto* const real = next<int(unsigned, unsigned, int)>("close_range");
  if (first > last) return real(first, last, flags);
  return close_runs(first, last, [flags](unsigned from, unsigned to) {
    return real(from, to, flags);
  });
}

void closefrom(int first) noexcept {
  close_range(first < 0 ? 0 : static_cast<unsigned>(first), ~0u, 0);
}

int dup2(int from, int to) noexcept {
  static auto* const real = next<int(int, int)>("dup2");
  return is_protected(to) ? refuse() : real(from, to);
}

int dup3(int from, int to, int flags) noexcept {
  static auto* const real = next<int(int, int, int)>("dup3");
  return is_protected(to) ? refuse() : real(from, to, flags);
}

}  // extern "C"
#pragma GCC visibility pop
