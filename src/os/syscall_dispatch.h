// SyscallDispatch: system calls of a thread come to a handler of ours before the kernel sees them.
//
// Primer: Linux's Syscall User Dispatch sends a thread SIGSYS in place of a system call, unless the
// instruction lies in one range of addresses, which holds direct_call() and little else, or a byte
// of the thread's says otherwise. The handler does the call, perhaps with other arguments, and the
// program goes on with its result. A new thread of the program is caught from its first
// instruction on. What a program does with its own signals stays its own: see signal_calls.h.
//
// A handler runs on an alternate stack, under the thread's own signal mask, so that a call that
// waits is interrupted as it would be without us. Whatever else the program's handlers do meanwhile
// nests above it.
//
// Cost: 1.8 µs a call. x86-64, Linux 5.11.
//
// Threading: start_catching() once, with one thread; the rest any thread.
// Spec: Linux kernel documentation, admin-guide/syscall-user-dispatch.
#pragma once

#include <array>
#include <csignal>
#include <cstdint>

#include <ucontext.h>

#include "base/result.h"

namespace isthmus::os {

using CallArguments = std::array<std::uint64_t, 6>;

struct CaughtCall {
  long number;
  CallArguments arguments;
  ucontext_t* context;  // Where it was made.
};

// Returns what the kernel would: a result, or -errno.
using CallHandler = std::int64_t (*)(CaughtCall& call);

// From here on this thread, and the threads and children by vfork() that it starts, are caught.
// kUnsupported: another processor, or an older kernel.
Result<void> start_catching(CallHandler handler);
// In a child of fork(), which the kernel does not catch.
void catch_again_in_child();
bool is_caught();  // This thread.
// A child by vfork(), which has our memory but not our handlers.
bool borrows_memory();

// Straight to the kernel, from anywhere; errno stays.
std::int64_t direct_call(long number, const CallArguments& arguments);

// Does one that makes a thread, or a child that shares our memory.
std::int64_t direct_clone(const CaughtCall& call);
// Ends this thread.
[[noreturn]] void direct_exit(const CaughtCall& call);
// Goes back to where a signal came.
[[noreturn]] void direct_sigreturn(const CaughtCall& call);

// While one lives, calls of this thread go straight to the kernel, libc's too; its signals wait.
class DirectCalls {
 public:
  DirectCalls();
  ~DirectCalls();
  DirectCalls(const DirectCalls&) = delete;
  DirectCalls& operator=(const DirectCalls&) = delete;

 private:
  std::uint64_t signals_before_ = 0;
  std::uint8_t selector_before_;
};

// The same in a signal handler that has all signals blocked; left with what entering returned.
std::uint8_t enter_direct_calls();
void leave_direct_calls(std::uint8_t before);

// Signal sets and struct sigaction as the kernel has them.
constexpr int kSignals = 64;
struct KernelAction {
  std::uint64_t handler;
  std::uint64_t flags;
  std::uint64_t restorer;
  std::uint64_t mask;
};
constexpr std::uint64_t signal_bit(int number) { return std::uint64_t{1} << (number - 1); }
constexpr std::uint64_t kNeverBlocked = signal_bit(SIGBUS) | signal_bit(SIGSYS);

}  // namespace isthmus::os
