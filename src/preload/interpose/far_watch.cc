#include "preload/interpose/far_watch.h"

#include <pthread.h>

#include <array>
#include <atomic>

#include "os/event_fd.h"
#include "os/fault_wait.h"
#include "os/last_words.h"
#include "os/poll.h"
#include "os/processor.h"
#include "preload/interpose/far_runtime.h"

namespace isthmus::preload {
namespace {

constexpr std::uint64_t kLookNs = 1'000'000'000;

// Waiting at so many looks in a row is no coincidence: a fault takes microseconds, and a node that
// is gone is given up after one second.
constexpr std::uint32_t kLooksUntilEnd = 3;

constexpr std::size_t kMostWatched = 64;

struct Watched {
  std::atomic<std::uint32_t> thread{0};
  std::uint32_t waiting_looks = 0;  // Of the watch alone.
};
constinit std::array<Watched, kMostWatched> watched{};

void look() {
  for (Watched& one : watched) {
    const std::uint32_t thread = one.thread.load();
    one.waiting_looks = thread != 0 && os::waits_for_fault(thread) ? one.waiting_looks + 1 : 0;
    if (one.waiting_looks == kLooksUntilEnd) {
      os::end_process(
          "a thread of far memory's own waits for a far page, which nobody could bring: this is a "
          "mistake in Isthmus; the program ends instead of hanging");
    }
  }
}

void* watch(void* descriptor) {
  const os::Fd never{static_cast<int>(reinterpret_cast<std::intptr_t>(descriptor))};
  const std::array<int, 1> fds{never.get()};
  for (;;) {
    os::wait_readable(fds, kLookNs);
    look();
  }
}

}  // namespace

void enter_watched_thread() {
  for (Watched& one : watched) {
    std::uint32_t nobody = 0;
    if (one.thread.compare_exchange_strong(nobody, os::thread_id())) return;
  }
}

void leave_watched_thread() {
  for (Watched& one : watched) {
    std::uint32_t self = os::thread_id();
    if (one.thread.compare_exchange_strong(self, 0)) return;
  }
}

void forget_watched_threads() {
  for (Watched& one : watched) {
    one.thread = 0;
    one.waiting_looks = 0;
  }
}

Result<void> start_watch() {
  os::Fd never = ISTHMUS_TRY(os::create_event_fd());  // Nobody signals it: it is there to wait on.
  pthread_t thread;
  void* const descriptor = reinterpret_cast<void*>(static_cast<std::intptr_t>(never.get()));
  if (const int error = start_runtime_thread(&thread, watch, descriptor); error != 0) {
    return fail_errno(error, "start a thread");
  }
  static_cast<void>(never.release());  // The thread's now.
  pthread_detach(thread);
  return {};
}

}  // namespace isthmus::preload
