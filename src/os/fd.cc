#include "os/fd.h"

#include <fcntl.h>
#include <unistd.h>

namespace isthmus::os {

void Fd::reset() {
  // No retry on EINTR: Linux has freed the number already.
  if (valid()) ::close(release());
}

Result<Fd> Fd::duplicate() const {
  const int copy = fcntl(number_, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return fail_errno(errno, "duplicate a file descriptor");
  return Fd{copy};
}

Result<Fd> Fd::duplicate_for_children() const {
  constexpr int kLowestNumber = 200;
  const int copy = fcntl(number_, F_DUPFD, kLowestNumber);
  if (copy < 0) return fail_errno(errno, "duplicate a file descriptor");
  return Fd{copy};
}

}  // namespace isthmus::os
