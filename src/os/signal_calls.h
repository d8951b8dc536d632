// Signal calls: what a caught thread's system calls about signals become, since SIGBUS and SIGSYS
// are ours (bus_error.h, syscall_dispatch.h) and handlers run on our alternate stack.
//
// The program sees what it asked for: its own handlers of the two, which get what is not ours; its
// own masks without them, since a thread that blocked SIGBUS could not fault; its own alternate
// stack, though handlers run on ours.
//
// Threading: any thread, in the SIGSYS handler.
#pragma once

#include <cstdint>
#include <optional>

#include "os/syscall_dispatch.h"

namespace isthmus::os {

// Does rt_sigaction, rt_sigprocmask, sigaltstack and the end of a handler. Nothing: another call.
std::optional<std::int64_t> do_signal_call(const CaughtCall& call);

// Room for the copy of a signal mask that a call is given.
struct MaskCopy {
  std::uint64_t mask;
  std::uint64_t pointer;  // pselect6 has mask and size in a struct.
  std::uint64_t bytes;
};
// Calls that wait with another mask (ppoll, pselect6, epoll_pwait, rt_sigsuspend) get one without
// our signals.
void filter_mask(CaughtCall& call, MaskCopy& copy);

}  // namespace isthmus::os
