// operator new and delete in all their forms: libstdc++'s would call malloc from inside libstdc++,
// and jemalloc's, which its library has too, would give to the runtime what is the program's.
#include <cstdlib>
#include <new>

#include "preload/interpose/far_allocator.h"
#include "preload/interpose/far_callers.h"
#include "preload/interpose/far_runtime.h"

namespace isthmus::preload {
namespace {

struct Request {
  std::size_t bytes;
  std::size_t alignment;  // 0: any type's.
  const void* caller;
};

void* try_once(Request request) {
  const bool far = is_far_memory_on() && !is_local_caller(request.caller, request.bytes);
  const std::size_t bytes = request.bytes == 0 ? 1 : request.bytes;
  if (request.alignment == 0) return far ? heaps.malloc(bytes) : __libc_malloc(bytes);
  return far ? heaps.memalign(request.alignment, bytes)
             : __libc_memalign(request.alignment, bytes);
}

// As the standard demands: the program's handler may find more memory, or throw.
void* allocate_or_throw(Request request) {
  for (;;) {
    if (void* memory = try_once(request)) return memory;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw std::bad_alloc();
    handler();
  }
}

void* allocate_or_null(Request request) noexcept {
  try {
    return allocate_or_throw(request);
  } catch (...) {
    return nullptr;
  }
}

constexpr std::size_t number(std::align_val_t alignment) {
  return static_cast<std::size_t>(alignment);
}

}  // namespace
}  // namespace isthmus::preload

using isthmus::preload::allocate_or_null;
using isthmus::preload::allocate_or_throw;
using isthmus::preload::number;

#define CALLER __builtin_return_address(0)

#pragma GCC visibility push(default)

void* operator new(std::size_t n) { return allocate_or_throw({n, 0, CALLER}); }
void* operator new[](std::size_t n) { return allocate_or_throw({n, 0, CALLER}); }
void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  return allocate_or_null({n, 0, CALLER});
}
void* operator new[](std::size_t n, const std::nothrow_t&) noexcept {
  return allocate_or_null({n, 0, CALLER});
}
void* operator new(std::size_t n, std::align_val_t a) {
  return allocate_or_throw({n, number(a), CALLER});
}
void* operator new[](std::size_t n, std::align_val_t a) {
  return allocate_or_throw({n, number(a), CALLER});
}
void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate_or_null({n, number(a), CALLER});
}
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return allocate_or_null({n, number(a), CALLER});
}

void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t, const std::nothrow_t&) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t, const std::nothrow_t&) noexcept {
  std::free(p);
}
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

#pragma GCC visibility pop
