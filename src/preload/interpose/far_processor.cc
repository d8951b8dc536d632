// The functions that ask on which processors this thread may run, and those that start a program,
// which would inherit the answer.
#include "preload/interpose/far_processor.h"

#include <dlfcn.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>

#include "preload/interpose/far_runtime.h"

namespace isthmus::preload {

void keep_no_processor() {
  if (!is_far_memory_on() || far_runtime.messages == nullptr) return;
  const int saved_errno = errno;
  const RuntimeScope scope;
  far_runtime.messages->let_go();
  errno = saved_errno;
}

}  // namespace isthmus::preload

namespace {

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

#define PASS_ON(function, ...)                                           \
  do {                                                                   \
    static auto* const real = next<decltype(function)>(#function);       \
    isthmus::preload::keep_no_processor();                               \
    return real(__VA_ARGS__);                                            \
  } while (false)

#pragma GCC visibility push(default)
extern "C" {

int sched_getaffinity(pid_t thread, size_t bytes, cpu_set_t* set) noexcept {
  PASS_ON(sched_getaffinity, thread, bytes, set);
}

int sched_setaffinity(pid_t thread, size_t bytes, const cpu_set_t* set) noexcept {
  PASS_ON(sched_setaffinity, thread, bytes, set);
}

int pthread_getaffinity_np(pthread_t thread, size_t bytes, cpu_set_t* set) noexcept {
  PASS_ON(pthread_getaffinity_np, thread, bytes, set);
}

int pthread_setaffinity_np(pthread_t thread, size_t bytes, const cpu_set_t* set) noexcept {
  PASS_ON(pthread_setaffinity_np, thread, bytes, set);
}

int system(const char* line) { PASS_ON(system, line); }

FILE* popen(const char* line, const char* mode) { PASS_ON(popen, line, mode); }

int posix_spawn(pid_t* process, const char* path, const posix_spawn_file_actions_t* actions,
                const posix_spawnattr_t* attributes, char* const argv[],
                char* const environment[]) noexcept {
  PASS_ON(posix_spawn, process, path, actions, attributes, argv, environment);
}

int posix_spawnp(pid_t* process, const char* file, const posix_spawn_file_actions_t* actions,
                 const posix_spawnattr_t* attributes, char* const argv[],
                 char* const environment[]) noexcept {
  PASS_ON(posix_spawnp, process, file, actions, attributes, argv, environment);
}

int execve(const char* path, char* const argv[], char* const environment[]) noexcept {
  PASS_ON(execve, path, argv, environment);
}

int execv(const char* path, char* const argv[]) noexcept { PASS_ON(execv, path, argv); }

int execvp(const char* file, char* const argv[]) noexcept { PASS_ON(execvp, file, argv); }

int execvpe(const char* file, char* const argv[], char* const environment[]) noexcept {
  PASS_ON(execvpe, file, argv, environment);
}

}  // extern "C"
#pragma GCC visibility pop
