#include "os/signal_calls.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>

#include "os/signal_follower.h"

#if defined(__x86_64__)

namespace isthmus::os {
namespace {

constexpr std::uint64_t kDefault = 0;
constexpr std::uint64_t kIgnore = 1;

// What the program asked for, where the kernel has something else.
constinit std::array<KernelAction, kSignals + 1> asked{};
constinit std::array<bool, kSignals + 1> is_asked{};
constinit std::atomic_flag actions_busy;

thread_local constinit stack_t asked_stack [[gnu::tls_model("initial-exec")]] = {
    nullptr, SS_DISABLE, 0};

// Signals wait: a handler may change actions too.
class ActionsLock {
 public:
  ActionsLock() {
    while (actions_busy.test_and_set(std::memory_order_acquire)) direct_call(SYS_sched_yield, {});
  }
  ~ActionsLock() { actions_busy.clear(std::memory_order_release); }

 private:
  DirectCalls calls_;
};

std::uint64_t number_of(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

template <class Value>
Value read(std::uint64_t address) {
  Value value;
  std::memcpy(&value, reinterpret_cast<const void*>(address), sizeof value);
  return value;
}

template <class Value>
void write(std::uint64_t address, const Value& value) {
  std::memcpy(reinterpret_cast<void*>(address), &value, sizeof value);
}

bool is_ours(std::uint64_t number) { return number == SIGBUS || number == SIGSYS; }

struct sigaction follower(const KernelAction& action) {
  struct sigaction made {};
  made.sa_flags = static_cast<int>(action.flags);
  made.sa_handler = reinterpret_cast<void (*)(int)>(action.handler);
  std::memcpy(&made.sa_mask, &action.mask, sizeof action.mask);
  return made;
}

std::int64_t do_action(const CallArguments& arguments) {
  const std::uint64_t number = arguments[0];
  if (number < 1 || number > kSignals || arguments[3] != sizeof(std::uint64_t)) return -EINVAL;
  KernelAction wanted{};
  KernelAction had{};
  const bool sets = arguments[1] != 0;
  if (sets) wanted = read<KernelAction>(arguments[1]);
  KernelAction given = wanted;
  given.mask &= ~kNeverBlocked;
  if (given.handler != kDefault && given.handler != kIgnore) given.flags |= SA_ONSTACK;
  // It is about to become another program, and what it changes must not be noted here.
  const bool borrowed = borrows_memory();
  if (borrowed && is_ours(number)) return 0;
  {
    const ActionsLock lock;
    std::int64_t result = 0;
    if (!is_ours(number)) {
      result = direct_call(SYS_rt_sigaction, {number, sets ? number_of(&given) : 0,
                                              number_of(&had), sizeof(std::uint64_t)});
    }
    if (result < 0) return result;
    if (is_asked[number] && !borrowed) had = asked[number];
    if (sets && !borrowed) {
      asked[number] = wanted;
      is_asked[number] = true;
      if (is_ours(number)) set_follower(static_cast<int>(number), follower(wanted));
    }
  }
  if (arguments[2] != 0) write(arguments[2], had);
  return 0;
}

std::int64_t do_mask(const CaughtCall& call) {
  const CallArguments& arguments = call.arguments;
  if (arguments[3] != sizeof(std::uint64_t)) return -EINVAL;
  // The mask that counts is the one that comes back at the end of this handler.
  std::uint64_t mask;
  std::memcpy(&mask, &call.context->uc_sigmask, sizeof mask);
  const std::uint64_t had = mask;
  if (arguments[1] != 0) {
    const auto set = read<std::uint64_t>(arguments[1]);
    switch (arguments[0]) {
      case SIG_BLOCK: mask |= set; break;
      case SIG_UNBLOCK: mask &= ~set; break;
      case SIG_SETMASK: mask = set; break;
      default: return -EINVAL;
    }
    mask &= ~(kNeverBlocked | signal_bit(SIGKILL) | signal_bit(SIGSTOP));
  }
  if (arguments[2] != 0) write(arguments[2], had);
  std::memcpy(&call.context->uc_sigmask, &mask, sizeof mask);
  return 0;
}

std::int64_t do_stack(const CallArguments& arguments) {
  stack_t had = asked_stack;
  if (arguments[0] != 0) {
    const auto wanted = read<stack_t>(arguments[0]);
    if ((wanted.ss_flags & ~(SS_DISABLE | SS_ONSTACK | static_cast<int>(1u << 31))) != 0) {
      return -EINVAL;
    }
    if ((wanted.ss_flags & SS_DISABLE) != 0) {
      asked_stack = {nullptr, SS_DISABLE, 0};
    } else {
      constexpr std::size_t kLeast = 2048;  // MINSIGSTKSZ of the kernel.
      if (wanted.ss_size < kLeast) return -ENOMEM;
      asked_stack = wanted;
    }
  }
  if (arguments[1] != 0) write(arguments[1], had);
  return 0;
}

}  // namespace

std::optional<std::int64_t> do_signal_call(const CaughtCall& call) {
  switch (call.number) {
    case SYS_rt_sigaction: return do_action(call.arguments);
    case SYS_rt_sigprocmask: return do_mask(call);
    case SYS_sigaltstack: return do_stack(call.arguments);
    case SYS_rt_sigreturn: direct_sigreturn(call);
    default: return std::nullopt;
  }
}

void filter_mask(CaughtCall& call, MaskCopy& copy) {
  const auto filter = [&copy](std::uint64_t& pointer, std::uint64_t bytes) {
    if (pointer == 0 || bytes != sizeof copy.mask) return;
    copy.mask = read<std::uint64_t>(pointer) & ~kNeverBlocked;
    pointer = number_of(&copy.mask);
  };
  CallArguments& arguments = call.arguments;
  switch (call.number) {
    case SYS_rt_sigsuspend: return filter(arguments[0], arguments[1]);
    case SYS_ppoll: return filter(arguments[3], arguments[4]);
    case SYS_epoll_pwait: return filter(arguments[4], arguments[5]);
    case SYS_epoll_pwait2: return filter(arguments[4], arguments[5]);
    case SYS_pselect6:
      if (arguments[5] == 0) return;
      copy.pointer = read<std::uint64_t>(arguments[5]);
      copy.bytes = read<std::uint64_t>(arguments[5] + sizeof copy.pointer);
      filter(copy.pointer, copy.bytes);
      arguments[5] = number_of(&copy.pointer);
      return;
    default: return;
  }
}

}  // namespace isthmus::os

#else

namespace isthmus::os {

std::optional<std::int64_t> do_signal_call(const CaughtCall&) { return std::nullopt; }
void filter_mask(CaughtCall&, MaskCopy&) {}

}  // namespace isthmus::os

#endif
