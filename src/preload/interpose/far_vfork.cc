// vfork(), in front of libc's: where system calls are caught, a child that borrows the stack of its
// parent cannot be had, and it is fork().
#include <dlfcn.h>

#include "os/syscall_dispatch.h"

extern "C" {
[[gnu::visibility("hidden")]] constinit void* isthmus_real_vfork = nullptr;
[[gnu::visibility("hidden"), gnu::used]] bool isthmus_vfork_is_fork() {
  return isthmus::os::is_caught();
}
}

namespace {

[[gnu::constructor(101)]] void find_vfork() { isthmus_real_vfork = dlsym(RTLD_NEXT, "vfork"); }

}  // namespace

#if defined(__x86_64__)
// A function that returns twice must leave no frame behind.
asm(R"(
.globl vfork
.type vfork, @function
vfork:
  sub $8, %rsp
  call isthmus_vfork_is_fork
  add $8, %rsp
  test %al, %al
  jne 1f
  jmp *isthmus_real_vfork(%rip)
1:
  jmp fork@PLT
.size vfork, . - vfork
)");
#endif
