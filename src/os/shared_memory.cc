#include "os/shared_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <string>

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

Result<std::size_t> file_bytes(const Fd& file) {
  struct stat status {};
  if (fstat(file.get(), &status) != 0) return fail_errno(errno, "look at a file");
  return static_cast<std::size_t>(status.st_size);
}

Result<MemoryFile> open_memory_file_of(std::int32_t process_id, int descriptor) {
  const std::string path =
      "/proc/" + std::to_string(process_id) + "/fd/" + std::to_string(descriptor);
  // Looked at before it is opened: to open another kind of file could wait for ever.
  const Fd place{open(path.c_str(), O_PATH | O_CLOEXEC)};
  if (!place) return fail_errno(errno, "find " + path);
  struct statfs system {};
  if (fstatfs(place.get(), &system) != 0) return fail_errno(errno, "look at " + path);
  struct stat status {};
  if (fstat(place.get(), &status) != 0) return fail_errno(errno, "look at " + path);
  if (system.f_type != TMPFS_MAGIC || !S_ISREG(status.st_mode)) {
    return fail(ErrorCode::kInvalid, "%s is no memory file", path.c_str());
  }
  const std::string same = "/proc/self/fd/" + std::to_string(place.get());
  MemoryFile opened{Fd{open(same.c_str(), O_RDWR | O_CLOEXEC)}, {}, 0};
  if (!opened.file) return fail_errno(errno, "open " + path);
  opened.identity = ISTHMUS_TRY(file_identity(opened.file.get()));
  opened.bytes = ISTHMUS_TRY(file_bytes(opened.file));
  if (opened.bytes == 0) return fail(ErrorCode::kInvalid, "%s is empty", path.c_str());
  ISTHMUS_TRY_VOID(check_shared_memory(opened.file, opened.bytes));
  return opened;
}

Result<void> discard_shared_memory(const Fd& file, std::size_t bytes) {
  if (fallocate(file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
                static_cast<off_t>(bytes)) != 0) {
    return fail_errno(errno, "discard shared memory");
  }
  return {};
}

Result<std::unique_ptr<Mapping>> Mapping::create(const Fd& file, std::size_t bytes,
                                                 std::size_t offset) {
  ISTHMUS_ASSERT(bytes > 0);
  void* address = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file.get(),
                       static_cast<off_t>(offset));
  if (address == MAP_FAILED) return fail_errno(errno, "map shared memory");
  return std::unique_ptr<Mapping>(new Mapping(static_cast<std::byte*>(address), bytes));
}

Mapping::~Mapping() { munmap(data_, bytes_); }

}  // namespace isthmus::os
