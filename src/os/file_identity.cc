#include "os/file_identity.h"

#include <sys/stat.h>

#include <cerrno>

namespace isthmus::os {

Result<FileIdentity> file_identity(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return fail_errno(errno, "look at a file descriptor");
  return FileIdentity{.device = status.st_dev, .inode = status.st_ino};
}

}  // namespace isthmus::os
