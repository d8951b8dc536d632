#include "os/last_words.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cstring>

namespace isthmus::os {

void end_process(const char* message) {
  char prefix[] = "isthmus: ";
  char newline[] = "\n";
  // SAFETY: writev only reads.
  const iovec pieces[] = {{prefix, sizeof prefix - 1},
                          {const_cast<char*>(message), std::strlen(message)},
                          {newline, 1}};
  static_cast<void>(!writev(STDERR_FILENO, pieces, 3));
  _exit(kExitBroken);
}

}  // namespace isthmus::os
