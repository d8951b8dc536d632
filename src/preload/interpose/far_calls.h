// System calls of a program whose faults are served by signal: the kernel cannot wait for a far
// page there and answers EFAULT, so what the arguments point to is brought here first and kept
// until the call is done (os/syscall_dispatch.h catches it).
//
// What stays out of reach: what structs of ioctl() point to; and asynchronous input and output
// (io_uring, io_setup), which answer ENOSYS. Structs that hold pointers are read by us first: a bad
// pointer to one is SIGSEGV instead of EFAULT.
//
// Threading: start_far_calls() once, before main().
#pragma once

#include <cstddef>
#include <memory>

#include "base/result.h"
#include "farmem/fault_signal.h"

namespace isthmus::preload {

// Faults are served inside the runtime, and with direct system calls.
Result<std::unique_ptr<farmem::FaultSignal>> start_fault_signal(farmem::Pager& pager);

// With far memory on. kUnsupported: not on this kernel or processor.
Result<void> start_far_calls();

// The part of a far stack that a new thread needs before its calls are caught.
void keep_stack_of_new_thread(const void* lowest, std::size_t bytes);

}  // namespace isthmus::preload
