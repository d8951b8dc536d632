// malloc and its family, in front of everybody's: what the program allocates is far.
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include <bit>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "preload/interpose/far_allocator.h"
#include "preload/interpose/far_callers.h"
#include "preload/interpose/far_runtime.h"
#include "os/address_range.h"

namespace isthmus::preload {
namespace {

bool goes_far(std::size_t bytes, const void* caller) {
  return is_far_memory_on() && !is_local_caller(caller, bytes);
}

bool is_jemallocs(const void* memory) { return is_far(memory) || is_early_extent(memory); }

// What was allocated before far memory was there, or by libc, and grows in the program's hands.
void* move_to_far(void* from, std::size_t bytes) {
  void* to = heaps.malloc(bytes);
  if (to == nullptr) return nullptr;
  const std::size_t had = heaps.local_usable_size(from);
  std::memcpy(to, from, had < bytes ? had : bytes);
  __libc_free(from);
  return to;
}

void* resize(void* memory, std::size_t bytes, const void* caller) {
  if (is_jemallocs(memory)) return heaps.realloc(memory, bytes);
  if (!goes_far(bytes, caller)) return __libc_realloc(memory, bytes);
  if (memory == nullptr) return heaps.malloc(bytes);
  if (bytes == 0) return __libc_realloc(memory, 0);
  return move_to_far(memory, bytes);
}

void* allocate_aligned(std::size_t alignment, std::size_t bytes, const void* caller) {
  return goes_far(bytes, caller) ? heaps.memalign(alignment, bytes)
                                 : __libc_memalign(alignment, bytes);
}

}  // namespace
}  // namespace isthmus::preload

using isthmus::os::kPageBytes;
using namespace isthmus::preload;

#define CALLER __builtin_return_address(0)

#pragma GCC visibility push(default)
extern "C" {

void* malloc(size_t bytes) noexcept {
  return goes_far(bytes, CALLER) ? heaps.malloc(bytes) : __libc_malloc(bytes);
}

void free(void* memory) noexcept {
  if (!is_jemallocs(memory)) return __libc_free(memory);
  const int saved_errno = errno;  // It may give memory back to the kernel.
  heaps.free(memory);
  errno = saved_errno;
}

void cfree(void* memory) noexcept { free(memory); }

void* calloc(size_t count, size_t bytes) noexcept {
  size_t all = 0;
  if (__builtin_mul_overflow(count, bytes, &all)) all = SIZE_MAX;
  return goes_far(all, CALLER) ? heaps.calloc(count, bytes) : __libc_calloc(count, bytes);
}

void* realloc(void* memory, size_t bytes) noexcept { return resize(memory, bytes, CALLER); }

void* reallocarray(void* memory, size_t count, size_t bytes) noexcept {
  size_t all = 0;
  if (__builtin_mul_overflow(count, bytes, &all)) {
    errno = ENOMEM;
    return nullptr;
  }
  return resize(memory, all, CALLER);
}

void* memalign(size_t alignment, size_t bytes) noexcept {
  return allocate_aligned(alignment, bytes, CALLER);
}

void* aligned_alloc(size_t alignment, size_t bytes) noexcept {
  return allocate_aligned(alignment, bytes, CALLER);
}

int posix_memalign(void** memory, size_t alignment, size_t bytes) noexcept {
  if (!std::has_single_bit(alignment) || alignment % sizeof(void*) != 0) return EINVAL;
  const int saved_errno = errno;
  void* allocated = allocate_aligned(alignment, bytes, CALLER);
  errno = saved_errno;
  if (allocated == nullptr) return ENOMEM;
  *memory = allocated;
  return 0;
}

void* valloc(size_t bytes) noexcept { return allocate_aligned(kPageBytes, bytes, CALLER); }

void* pvalloc(size_t bytes) noexcept {
  if (bytes > SIZE_MAX - kPageBytes) {
    errno = ENOMEM;
    return nullptr;
  }
  const size_t pages = bytes == 0 ? 1 : (bytes + kPageBytes - 1) / kPageBytes;
  return allocate_aligned(kPageBytes, pages * kPageBytes, CALLER);
}

size_t malloc_usable_size(void* memory) noexcept {
  if (memory == nullptr) return 0;
  return is_jemallocs(memory) ? heaps.usable_size(memory) : heaps.local_usable_size(memory);
}

// libc's own would call malloc from libc, where what is small stays local; but this is the
// program's, and there may be much of it.
char* strdup(const char* text) noexcept {
  const size_t bytes = std::strlen(text) + 1;
  void* copy = goes_far(bytes, CALLER) ? heaps.malloc(bytes) : __libc_malloc(bytes);
  return copy == nullptr ? nullptr : static_cast<char*>(std::memcpy(copy, text, bytes));
}

char* __strdup(const char* text) noexcept {
  const size_t bytes = std::strlen(text) + 1;
  void* copy = goes_far(bytes, CALLER) ? heaps.malloc(bytes) : __libc_malloc(bytes);
  return copy == nullptr ? nullptr : static_cast<char*>(std::memcpy(copy, text, bytes));
}

char* strndup(const char* text, size_t most) noexcept {
  const size_t length = strnlen(text, most);
  void* copy = goes_far(length + 1, CALLER) ? heaps.malloc(length + 1) : __libc_malloc(length + 1);
  if (copy == nullptr) return nullptr;
  auto* made = static_cast<char*>(std::memcpy(copy, text, length));
  made[length] = '\0';
  return made;
}

}  // extern "C"
#pragma GCC visibility pop
