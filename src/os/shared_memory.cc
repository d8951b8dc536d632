#include "os/shared_memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/assert.h"

namespace isthmus::os {

Result<Fd> create_shared_memory(const char* name, std::size_t bytes) {
  Fd file{memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING)};
  if (!file) return fail_errno(errno, "create shared memory");
  if (ftruncate(file.get(), static_cast<off_t>(bytes)) != 0) {
    return fail_errno(errno, "size shared memory");
  }
  if (fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return fail_errno(errno, "seal shared memory");
  }
  return file;
}

Result<void> check_shared_memory(const Fd& file, std::size_t bytes) {
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return fail_errno(errno, "look at shared memory");
  const int seals = fcntl(file.get(), F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    return fail(ErrorCode::kInvalid, "shared memory from another process could shrink");
  }
  if (static_cast<std::size_t>(status.st_size) != bytes) {
    return fail(ErrorCode::kInvalid, "shared memory has %lld bytes instead of %zu",
                static_cast<long long>(status.st_size), bytes);
  }
  return {};
}

bool same_shared_memory(const Fd& first, const Fd& second) {
  struct stat one {};
  struct stat other {};
  return fstat(first.get(), &one) == 0 && fstat(second.get(), &other) == 0 &&
         one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

Result<void> discard_shared_memory(const Fd& file, std::size_t bytes) {
  if (fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                static_cast<off_t>(bytes)) != 0) {
    return fail_errno(errno, "discard shared memory");
  }
  return {};
}

Result<std::unique_ptr<Mapping>> Mapping::create(const Fd& file, std::size_t bytes) {
  ISTHMUS_ASSERT(bytes > 0);
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) return fail_errno(errno, "map shared memory");
  return std::unique_ptr<Mapping>(new Mapping(static_cast<std::byte*>(address), bytes));
}

Mapping::~Mapping() { munmap(data_, bytes_); }

}  // namespace isthmus::os
