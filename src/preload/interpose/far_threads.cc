// Threads and fork: a thread that the runtime starts is the runtime's, and allocates locally; and
// around fork() the pager stands still.
//
// Handlers of fork run in the order of their registration in the child, and against it before. Ours
// are registered before everybody's: in the child the far region is served again before jemalloc
// touches it, and the pager stops only when all that other handlers wait for has been let go. Those
// of the runtime's own libraries run with ours.
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>

#include "preload/interpose/far_allocator.h"
#include "preload/interpose/far_calls.h"
#include "preload/interpose/far_fork.h"
#include "preload/interpose/far_processor.h"
#include "preload/interpose/far_runtime.h"
#include "preload/interpose/far_watch.h"
#include "os/signal_block.h"
#include "os/syscall_dispatch.h"

extern "C" void* __dso_handle;

namespace isthmus::preload {
namespace {

using Start = int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
using RegisterAtFork = int(void (*)(), void (*)(), void (*)(), void*);

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

Start* next_start() {
  static auto* const function = next<Start>("pthread_create");
  return function;
}

struct Begun {
  void* (*work)(void*);
  void* argument;
};

void* run_in_runtime(void* argument) {
  ++runtime_depth;  // For the thread's life.
  const Begun begun = *static_cast<Begun*>(argument);
  __libc_free(argument);
  enter_watched_thread();
  void* const result = begun.work(begun.argument);
  leave_watched_thread();
  return result;
}

int start_in_runtime(pthread_t* thread, const pthread_attr_t* attributes, void* (*work)(void*),
                     void* argument) {
  auto* begun = static_cast<Begun*>(__libc_malloc(sizeof(Begun)));
  if (begun == nullptr) return EAGAIN;
  *begun = {work, argument};
  const os::SignalBlock block;  // Inherited: the program's handlers are not for our threads.
  const os::DirectCalls direct;  // Nor is it caught.
  const int error = next_start()(thread, attributes, run_in_runtime, begun);
  if (error != 0) __libc_free(begun);
  return error;
}

}  // namespace

int start_runtime_thread(pthread_t* thread, void* (*work)(void*), void* argument) {
  return start_in_runtime(thread, nullptr, work, argument);
}

}  // namespace isthmus::preload

using namespace isthmus::preload;

#pragma GCC visibility push(default)
extern "C" {

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*work)(void*),
                   void* argument) noexcept {
  keep_no_processor();
  if (runtime_depth == 0) {
    void* stack = nullptr;
    std::size_t bytes = 0;
    if (isthmus::os::is_caught() && attributes != nullptr &&
        pthread_attr_getstack(attributes, &stack, &bytes) == 0) {
      keep_stack_of_new_thread(stack, bytes);
    }
    return next_start()(thread, attributes, work, argument);
  }
  return start_in_runtime(thread, attributes, work, argument);
}

// What pthread_atfork() of every library calls.
int __register_atfork(void (*prepare)(), void (*parent)(), void (*child)(), void* owner) {
  static auto* const function = next<RegisterAtFork>("__register_atfork");
  static const int ours = function(before_fork, after_fork_in_parent, after_fork_in_child,
                                   &__dso_handle);
  if (ours != 0) return ours;
  if (runtime_depth > 0 && add_fork_handlers({prepare, parent, child})) return 0;
  return function(prepare, parent, child, owner);
}

}  // extern "C"
#pragma GCC visibility pop
