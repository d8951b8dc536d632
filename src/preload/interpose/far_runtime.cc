#include "preload/interpose/far_runtime.h"

#include <pthread.h>

#include "os/syscall_dispatch.h"

namespace isthmus::preload {

constinit FarRuntime far_runtime;
thread_local constinit int runtime_depth = 0;

namespace {

struct Work {
  void (*work)(void*);
  void* argument;
};

void* run(void* argument) {
  const auto* work = static_cast<const Work*>(argument);
  work->work(work->argument);
  return nullptr;
}

}  // namespace

void run_on_local_stack(void (*work)(void*), void* argument) {
  const RuntimeScope scope;
  const os::DirectCalls direct;
  if (!is_far(__builtin_frame_address(0))) return work(argument);
  Work both{work, argument};
  pthread_t thread;
  // Where no thread can be had, a fault on this stack is still unlikely: it has just been used.
  if (start_runtime_thread(&thread, run, &both) != 0) return work(argument);
  pthread_join(thread, nullptr);
}

}  // namespace isthmus::preload
