#include "os/last_words.h"

#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cstring>

#include "os/syscall_dispatch.h"

namespace isthmus::os {

void end_process(const char* message) {
  char prefix[] = "isthmus: ";
  char newline[] = "\n";
  // SAFETY: writev only reads.
  const std::array<iovec, 3> pieces{{{prefix, sizeof prefix - 1},
                                     {const_cast<char*>(message), std::strlen(message)},
                                     {newline, 1}}};
  // Direct: this thread's calls may be caught, by a signal that it blocks.
  direct_call(SYS_writev, {STDERR_FILENO, reinterpret_cast<std::uint64_t>(pieces.data()),
                           pieces.size()});
  for (;;) direct_call(SYS_exit_group, {kExitBroken});
}

}  // namespace isthmus::os
