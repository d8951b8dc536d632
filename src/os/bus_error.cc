#include "os/bus_error.h"

#include <signal.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "os/syscall_dispatch.h"

namespace isthmus::os {
namespace {

std::atomic<BusErrorHandler> the_handler{nullptr};
struct sigaction follower;  // Who had the signal before us, or was named since.

BusAccess access_of(const void* context) {
#if defined(__x86_64__)
  constexpr std::uint64_t kWriteBit = 2;  // Of the page fault's error code.
  const auto* machine = static_cast<const ucontext_t*>(context);
  const auto code = static_cast<std::uint64_t>(machine->uc_mcontext.gregs[REG_ERR]);
  return (code & kWriteBit) != 0 ? BusAccess::kWrite : BusAccess::kRead;
#else
  // Unknown: a write would be taken as a read first, and fault again with its page protected.
  static_cast<void>(context);
  return BusAccess::kWrite;
#endif
}

// System calls from here on are direct: they may be caught, and all signals are blocked.
std::uint64_t number_of(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

// The instruction faults again on return, and then ends the process. One that was sent by another
// process does not come again by itself, so it is sent again.
void die_of_it(const siginfo_t& info) {
  const std::array<std::uint64_t, 4> default_action{};  // As the kernel has it.
  direct_call(SYS_rt_sigaction,
              {SIGBUS, number_of(&default_action), 0, sizeof(std::uint64_t)});
  if (info.si_code > 0) return;
  const auto process = static_cast<std::uint64_t>(direct_call(SYS_getpid, {}));
  const auto thread = static_cast<std::uint64_t>(direct_call(SYS_gettid, {}));
  direct_call(SYS_tgkill, {process, thread, SIGBUS});
}

// As if we were not there.
void pass_on(int signal_number, siginfo_t* info, void* context) {
  const struct sigaction action = follower;
  const bool handled = (action.sa_flags & SA_SIGINFO) != 0 ||
                       (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
  if (!handled) return die_of_it(*info);
  // What is blocked is what the program asked for; it may make system calls, which may be caught.
  std::uint64_t mask = 0;
  std::uint64_t more = 0;
  std::memcpy(&mask, &static_cast<ucontext_t*>(context)->uc_sigmask, sizeof mask);
  std::memcpy(&more, &action.sa_mask, sizeof more);
  mask = (mask | more) & ~kNeverBlocked;
  direct_call(SYS_rt_sigprocmask, {SIG_SETMASK, number_of(&mask), 0, sizeof mask});
  if ((action.sa_flags & SA_SIGINFO) != 0) {
    action.sa_sigaction(signal_number, info, context);
  } else {
    action.sa_handler(signal_number);
  }
}

void on_bus_error(int signal_number, siginfo_t* info, void* context) {
  const int kept = errno;
  const BusErrorHandler handler = the_handler.load(std::memory_order_relaxed);
  // SAFETY: an address to compare, not to follow.
  const auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
  const bool of_memory = info->si_code > 0;
  if (!of_memory || handler(address, access_of(context)) == BusVerdict::kForeign) {
    pass_on(signal_number, info, context);
  }
  errno = kept;
}

}  // namespace

void pass_bus_errors_to(const struct sigaction& action) { follower = action; }

Result<void> catch_bus_errors(BusErrorHandler handler) {
  the_handler.store(handler, std::memory_order_relaxed);
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigfillset(&action.sa_mask);
  struct sigaction before {};
  if (sigaction(SIGBUS, nullptr, &before) != 0) return fail_errno(errno, "look at SIGBUS");
  if ((before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction == on_bus_error) return {};
  follower = before;
  if (sigaction(SIGBUS, &action, nullptr) != 0) return fail_errno(errno, "catch SIGBUS");
  return {};
}

}  // namespace isthmus::os
