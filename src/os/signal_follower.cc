#include "os/signal_follower.h"

#include <sys/syscall.h>
#include <ucontext.h>

#include <array>
#include <cstdint>
#include <cstring>

#include "os/syscall_dispatch.h"

namespace isthmus::os {
namespace {

constinit std::array<struct sigaction, kSignals + 1> followers{};

// System calls are direct: they may be caught, and all signals are blocked.
std::uint64_t number_of(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

// A bus error of an instruction comes again when we return. What another process sent does not, nor
// does a system call that was refused: those are sent again.
void die_of_it(int signal_number, const siginfo_t& info) {
  const KernelAction default_action{};
  const auto number = static_cast<std::uint64_t>(signal_number);
  direct_call(SYS_rt_sigaction,
              {number, number_of(&default_action), 0, sizeof default_action.mask});
  if (signal_number == SIGBUS && info.si_code > 0) return;
  const auto process = static_cast<std::uint64_t>(direct_call(SYS_getpid, {}));
  const auto thread = static_cast<std::uint64_t>(direct_call(SYS_gettid, {}));
  direct_call(SYS_tgkill, {process, thread, number});
}

}  // namespace

void set_follower(int signal_number, const struct sigaction& action) {
  followers[static_cast<std::size_t>(signal_number)] = action;
}

void pass_to_follower(int signal_number, siginfo_t* info, void* context) {
  const struct sigaction action = followers[static_cast<std::size_t>(signal_number)];
  const bool handled = (action.sa_flags & SA_SIGINFO) != 0 ||
                       (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
  if (!handled) {
    if (action.sa_handler == SIG_IGN && info->si_code <= 0) return;
    return die_of_it(signal_number, *info);
  }
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

}  // namespace isthmus::os
