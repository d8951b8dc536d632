#include "os/byte_lock.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "os/low_descriptors.h"

namespace isthmus::os {
namespace {

bool set_lock(const Fd& file, std::uint64_t byte, short type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(byte);
  lock.l_len = 1;
  const int kept = errno;
  const bool done = fcntl(file.get(), F_OFD_SETLK, &lock) == 0;
  errno = kept;
  return done;
}

}  // namespace

Result<Fd> create_lock_bytes(const char* name) {
  Fd file{memfd_create(name, MFD_CLOEXEC)};
  if (!file) return fail_errno(errno, "create a file of locks");
  return file;
}

Result<Fd> open_again(const Fd& file) {
  const std::string path = "/proc/self/fd/" + std::to_string(file.get());
  Fd again{moved_high(open(path.c_str(), O_RDWR | O_CLOEXEC))};
  if (!again) return fail_errno(errno, "open a file of locks again");
  return again;
}

bool try_lock_byte(const Fd& file, std::uint64_t byte) { return set_lock(file, byte, F_WRLCK); }

void unlock_byte(const Fd& file, std::uint64_t byte) { set_lock(file, byte, F_UNLCK); }

}  // namespace isthmus::os
