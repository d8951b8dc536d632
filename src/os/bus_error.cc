#include "os/bus_error.h"

#include <signal.h>
#include <ucontext.h>

#include <atomic>
#include <cerrno>

#include "os/signal_follower.h"

namespace isthmus::os {
namespace {

std::atomic<BusErrorHandler> the_handler{nullptr};

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

void on_bus_error(int signal_number, siginfo_t* info, void* context) {
  const int kept = errno;
  const BusErrorHandler handler = the_handler.load(std::memory_order_relaxed);
  // SAFETY: an address to compare, not to follow.
  const auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
  const bool of_memory = info->si_code > 0;
  if (!of_memory || handler(address, access_of(context)) == BusVerdict::kForeign) {
    pass_to_follower(signal_number, info, context);
  }
  errno = kept;
}

}  // namespace

Result<void> catch_bus_errors(BusErrorHandler handler) {
  the_handler.store(handler, std::memory_order_relaxed);
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigfillset(&action.sa_mask);
  struct sigaction before {};
  if (sigaction(SIGBUS, nullptr, &before) != 0) return fail_errno(errno, "look at SIGBUS");
  if ((before.sa_flags & SA_SIGINFO) != 0 && before.sa_sigaction == on_bus_error) return {};
  set_follower(SIGBUS, before);
  if (sigaction(SIGBUS, &action, nullptr) != 0) return fail_errno(errno, "catch SIGBUS");
  return {};
}

}  // namespace isthmus::os
