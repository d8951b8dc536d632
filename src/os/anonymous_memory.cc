#include "os/anonymous_memory.h"

#include <sys/mman.h>

namespace isthmus::os {

namespace {

Result<std::byte*> map(std::size_t bytes, int flags) {
  if (bytes == 0) return nullptr;
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    flags | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    return fail_errno(errno, "map " + std::to_string(bytes) + " bytes of memory");
  }
  madvise(data, bytes, MADV_DONTDUMP);  // A smaller core file is only a courtesy.
  return static_cast<std::byte*>(data);
}

}  // namespace

Result<std::unique_ptr<AnonymousMemory>> AnonymousMemory::create(std::size_t bytes) {
  std::byte* const data = ISTHMUS_TRY(map(bytes, MAP_PRIVATE));
  return std::unique_ptr<AnonymousMemory>(new AnonymousMemory(data, bytes));
}

Result<std::unique_ptr<AnonymousMemory>> AnonymousMemory::create_shared(std::size_t bytes) {
  std::byte* const data = ISTHMUS_TRY(map(bytes, MAP_SHARED));
  return std::unique_ptr<AnonymousMemory>(new AnonymousMemory(data, bytes));
}

void AnonymousMemory::discard_shared(std::size_t first, std::size_t bytes) const {
  madvise(data_ + first, bytes, MADV_REMOVE);
}

void AnonymousMemory::prefer_large_pages() const { madvise(data_, bytes_, MADV_HUGEPAGE); }

AnonymousMemory::~AnonymousMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace isthmus::os
