#include "os/anonymous_memory.h"

#include <sys/mman.h>

namespace isthmus::os {

Result<std::unique_ptr<AnonymousMemory>> AnonymousMemory::create(std::size_t bytes) {
  if (bytes == 0) return std::unique_ptr<AnonymousMemory>(new AnonymousMemory(nullptr, 0));
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return fail_errno(errno, "map " + std::to_string(bytes) + " bytes of memory");
  }
  madvise(data, bytes, MADV_DONTDUMP);  // A smaller core file is only a courtesy.
  return std::unique_ptr<AnonymousMemory>(
      new AnonymousMemory(static_cast<std::byte*>(data), bytes));
}

void AnonymousMemory::prefer_large_pages() const { madvise(data_, bytes_, MADV_HUGEPAGE); }

AnonymousMemory::~AnonymousMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace isthmus::os
