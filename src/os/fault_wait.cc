#include "os/fault_wait.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "os/fd.h"

namespace isthmus::os {

bool waits_for_fault(std::uint32_t thread_id) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/self/task/%u/wchan", thread_id);
  const Fd file{open(path, O_RDONLY | O_CLOEXEC)};
  if (!file) return false;
  char place[64] = {};
  return read(file.get(), place, sizeof place - 1) > 0 &&
         std::strncmp(place, "handle_userfault", std::strlen("handle_userfault")) == 0;
}

}  // namespace isthmus::os
