// Makes far memory's own thread touch far memory, which it never does by itself: this program's
// ioctl stands before libc's, and in a thread that is not the program's it reads a far page. The
// process must end with a message, not hang.
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { kBytes = 64 << 20 };

static volatile char* memory;
static volatile int armed;

int ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (armed && gettid() != getpid()) {
    armed = 0;
    for (int at = 0; at < kBytes / 2; at += 4096) (void)memory[at];
  }
  return (int)syscall(SYS_ioctl, fd, request, argument);
}

int main(void) {
  memory = mmap(NULL, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return 1;
  for (int at = 0; at < kBytes; at += 4096) memory[at] = 1;
  armed = 1;
  for (int at = 0; at < kBytes; at += 4096) memory[at] += 1;
  puts("served nevertheless");
  return 0;
}
