#include "os/lock_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <fstream>

namespace isthmus::os {

Result<Fd> lock_file(const std::string& path, LockWait wait) {
  Fd fd{open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)};
  if (!fd) return fail_errno(errno, "open the lock file " + path);
  while (flock(fd.get(), LOCK_EX | (wait == LockWait::kNo ? LOCK_NB : 0)) != 0) {
    if (errno == EWOULDBLOCK) return fail(ErrorCode::kBusy, "%s is locked", path.c_str());
    if (errno != EINTR) return fail_errno(errno, "lock " + path);
  }
  return fd;
}

void write_lock_owner(const Fd& lock, std::int32_t process_id) {
  const std::string line = std::to_string(process_id) + "\n";
  if (ftruncate(lock.get(), 0) != 0) return;  // For people only: not worth an error.
  [[maybe_unused]] const ssize_t written = pwrite(lock.get(), line.data(), line.size(), 0);
}

std::int32_t read_lock_owner(const std::string& path) {
  std::int32_t process_id = 0;
  std::ifstream(path) >> process_id;
  return process_id;
}

void remove_file(const std::string& path) { unlink(path.c_str()); }

}  // namespace isthmus::os
