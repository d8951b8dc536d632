#include "os/memory_calls.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace isthmus::os {

void* kernel_map(const MapRequest& request) {
  return reinterpret_cast<void*>(syscall(SYS_mmap, request.address, request.bytes,
                                         request.protection, request.flags, request.fd,
                                         request.offset));
}

int kernel_unmap(void* address, std::size_t bytes) {
  return static_cast<int>(syscall(SYS_munmap, address, bytes));
}

void* kernel_remap(const RemapRequest& request) {
  return reinterpret_cast<void*>(syscall(SYS_mremap, request.address, request.old_bytes,
                                         request.new_bytes, request.flags,
                                         request.new_address));
}

int kernel_advise(void* address, std::size_t bytes, int advice) {
  return static_cast<int>(syscall(SYS_madvise, address, bytes, advice));
}

int kernel_protect(void* address, std::size_t bytes, int protection) {
  return static_cast<int>(syscall(SYS_mprotect, address, bytes, protection));
}

int kernel_lock(const void* address, std::size_t bytes, unsigned flags) {
  if (flags != 0) return static_cast<int>(syscall(SYS_mlock2, address, bytes, flags));
  return static_cast<int>(syscall(SYS_mlock, address, bytes));
}

int kernel_unlock(const void* address, std::size_t bytes) {
  return static_cast<int>(syscall(SYS_munlock, address, bytes));
}

int kernel_lock_all(int flags) { return static_cast<int>(syscall(SYS_mlockall, flags)); }

std::uint64_t physical_memory_bytes() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  return pages > 0 ? static_cast<std::uint64_t>(pages) * kPageBytes : 0;
}

}  // namespace isthmus::os
