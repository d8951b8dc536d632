// mmap and its family, in front of libc's: private anonymous memory of 64 KiB and more is far.
//
// Left to the kernel: files, shared and executable memory, stacks, fixed places outside the region,
// and most of what is reserved without access. Where far memory is full, mapping fails: what does
// not fit must not take local memory instead.
#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "preload/interpose/far_allocator.h"
#include "preload/interpose/far_callers.h"
#include "preload/interpose/far_mappings.h"
#include "preload/interpose/far_runtime.h"
#include "os/memory_calls.h"

namespace isthmus::preload {
namespace {

using os::AddressRange;
using os::kPageBytes;

constexpr int kReadWrite = PROT_READ | PROT_WRITE;

std::uint64_t number(const void* address) { return reinterpret_cast<std::uint64_t>(address); }
void* pointer(std::uint64_t address) { return reinterpret_cast<void*>(address); }

std::uint64_t whole_pages(std::uint64_t bytes) {
  return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
}

int fail_with(int error) {
  errno = error;
  return -1;
}

// The three parts of a range that may reach over the borders of the region.
struct Parts {
  AddressRange before;
  AddressRange far;
  AddressRange behind;
};

// False: not whole pages, or no byte of it is far; then the kernel may say what it thinks.
bool split(const void* address, std::size_t bytes, Parts& parts) {
  if (!is_far_memory_on()) return false;
  const AddressRange all{number(address), whole_pages(bytes)};
  if (bytes > all.bytes || !os::is_whole_pages(all)) return false;
  const AddressRange region{far_runtime.start, far_runtime.bytes.load()};
  const std::uint64_t start = std::clamp(all.start, region.start, region.end());
  const std::uint64_t end = std::clamp(all.end(), region.start, region.end());
  if (start >= end) return false;
  parts = {{all.start, start - all.start}, {start, end - start}, {end, all.end() - end}};
  return true;
}

// The calls whose meaning is the sum of that of their parts. `on_far` returns an errno value.
template <class OnKernel, class OnFar>
int on_parts(const Parts& parts, OnKernel&& on_kernel, OnFar&& on_far) {
  for (const AddressRange part : {parts.before, parts.behind}) {
    if (part.bytes > 0 && on_kernel(pointer(part.start), part.bytes) != 0) return -1;
  }
  const int error = on_far(parts.far);
  return error == 0 ? 0 : fail_with(error);
}

bool is_private_data(const os::MapRequest& request) {
  constexpr int kOthers = MAP_FIXED | MAP_FIXED_NOREPLACE | MAP_STACK | MAP_GROWSDOWN |
                          MAP_HUGETLB | MAP_32BIT;
  return (request.flags & MAP_TYPE) == MAP_PRIVATE && (request.flags & MAP_ANONYMOUS) != 0 &&
         (request.flags & kOthers) == 0;
}

bool may_be_far(const os::MapRequest& request, const void* caller) {
  if (!is_far_memory_on() || is_local_caller(caller, request.bytes)) return false;
  if (!is_private_data(request) || request.protection != kReadWrite) return false;
  // All that jemalloc has is far, so that what comes back to free() is known by its address.
  return request.bytes >= kLeastFarBytes || (request.bytes > 0 && is_allocator(caller));
}

void* map_far(const os::MapRequest& request) {
  const std::uint64_t bytes = whole_pages(request.bytes);
  const bool sensible = bytes >= request.bytes;
  const AddressRange hint{number(request.address), bytes};
  if (sensible && is_far(request.address) && os::is_whole_pages(hint) &&
      hint.end() <= far_runtime.start + far_runtime.bytes.load() && take_far_at(hint)) {
    return request.address;
  }
  const auto range = sensible ? take_far(bytes) : std::nullopt;
  if (!range) {
    errno = ENOMEM;
    return MAP_FAILED;
  }
  return pointer(range->start);
}

// Address space without access, in which the program will map its memory at fixed places: QEMU does
// so for a guest's. It may come to nothing, or be for files, which cannot lie among far pages; so
// what is small, says that it is no memory yet (MAP_NORESERVE), or is most of the region stays the
// kernel's.
bool may_be_reserved_far(const os::MapRequest& request, const void* caller) {
  constexpr std::uint64_t kLeastReserved = 64u << 20;
  return is_far_memory_on() && request.protection == PROT_NONE && is_private_data(request) &&
         (request.flags & MAP_NORESERVE) == 0 && request.bytes >= kLeastReserved &&
         request.bytes <= far_runtime.bytes.load() / 2 && !is_local_caller(caller, request.bytes);
}

// Nothing: there is no room, or the kernel refuses.
void* reserve_far(const os::MapRequest& request) {
  const auto range = take_far(whole_pages(request.bytes));
  if (!range) return nullptr;
  if (protect_far(*range, PROT_NONE) == 0) return pointer(range->start);
  release_far(*range);
  return nullptr;
}

// MAP_FIXED over far pages: the same kind of memory begins anew; another kind would tear a hole
// into the region.
void* map_over(const os::MapRequest& request, const Parts& parts) {
  const bool same_kind = (request.flags & MAP_TYPE) == MAP_PRIVATE &&
                         (request.flags & MAP_ANONYMOUS) != 0 &&
                         (request.flags & (MAP_GROWSDOWN | MAP_HUGETLB)) == 0;
  if (!same_kind || parts.before.bytes > 0 || parts.behind.bytes > 0) {
    errno = ENOTSUP;
    return MAP_FAILED;
  }
  unlock_far(parts.far);
  discard_far(parts.far);
  take_far_at(parts.far);  // Where nothing was mapped before.
  if (const int error = protect_far(parts.far, request.protection); error != 0) {
    errno = error;
    return MAP_FAILED;
  }
  return request.address;
}

void* map(const os::MapRequest& request, const void* caller) {
  Parts parts;
  if ((request.flags & MAP_FIXED) != 0 && split(request.address, request.bytes, parts)) {
    return map_over(request, parts);
  }
  if (may_be_far(request, caller)) return map_far(request);
  if (may_be_reserved_far(request, caller)) {
    if (void* const reserved = reserve_far(request); reserved != nullptr) return reserved;
  }
  void* mapped = os::kernel_map(request);
  if (!is_far_memory_on() && mapped != MAP_FAILED && is_allocator(caller)) {
    note_early_extent({number(mapped), whole_pages(request.bytes)});
  }
  return mapped;
}

// Of a range that is all far.
void* resize_far(AddressRange old, std::uint64_t bytes, const os::RemapRequest& request) {
  if ((request.flags & MREMAP_FIXED) == 0) {
    if (bytes <= old.bytes) {
      if (bytes < old.bytes) release_far({old.start + bytes, old.bytes - bytes});
      return request.address;
    }
    const AddressRange more{old.end(), bytes - old.bytes};
    if (more.end() <= far_runtime.start + far_runtime.bytes.load() && take_far_at(more)) {
      return request.address;
    }
    if ((request.flags & MREMAP_MAYMOVE) == 0) {
      errno = ENOMEM;
      return MAP_FAILED;
    }
  }
  void* to = map({.address = request.new_address,
                  .bytes = bytes,
                  .protection = kReadWrite,
                  .flags = MAP_PRIVATE | MAP_ANONYMOUS |
                           ((request.flags & MREMAP_FIXED) != 0 ? MAP_FIXED : 0)},
                 nullptr);
  if (to == MAP_FAILED) return MAP_FAILED;
  std::memcpy(to, request.address, std::min(old.bytes, bytes));
  release_far(old);
  return to;
}

void* remap(const os::RemapRequest& request) {
  Parts parts;
  if (split(request.address, request.old_bytes, parts)) {
    const std::uint64_t bytes = whole_pages(request.new_bytes);
    const bool known = (request.flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED)) == 0;
    if (parts.before.bytes > 0 || parts.behind.bytes > 0 || !known || bytes == 0 ||
        bytes < request.new_bytes) {
      errno = EINVAL;
      return MAP_FAILED;
    }
    return resize_far(parts.far, bytes, request);
  }
  if ((request.flags & MREMAP_FIXED) != 0 &&
      split(request.new_address, request.new_bytes, parts)) {
    errno = ENOTSUP;  // As in map_over().
    return MAP_FAILED;
  }
  return os::kernel_remap(request);
}

int advise_far(AddressRange range, int advice) {
  switch (advice) {
    case MADV_DONTNEED:
    case MADV_FREE: return discard_far(range);
    case MADV_WILLNEED:
      prefetch_far(range);
      return 0;
    case MADV_REMOVE:
    case MADV_WIPEONFORK: return EINVAL;
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_HUGEPAGE:    // Pages of the region move one by one.
    case MADV_NOHUGEPAGE:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_DONTFORK:    // A child has all of the region or none.
    case MADV_DOFORK:
    case MADV_COLD:
    case MADV_PAGEOUT: return 0;  // The pager knows what is cold.
    default: return os::kernel_advise(pointer(range.start), range.bytes, advice) == 0 ? 0 : errno;
  }
}

int advise(void* address, std::size_t bytes, int advice) {
  Parts parts;
  if (!split(address, bytes, parts)) return os::kernel_advise(address, bytes, advice);
  return on_parts(
      parts, [advice](void* at, std::size_t n) { return os::kernel_advise(at, n, advice); },
      [advice](AddressRange far) { return advise_far(far, advice); });
}

int lock(const void* address, std::size_t bytes, unsigned flags) {
  // mlock takes any address, of a byte of the first page.
  const std::uint64_t skipped = number(address) % kPageBytes;
  Parts parts;
  if (!split(pointer(number(address) - skipped), bytes + skipped, parts)) {
    return os::kernel_lock(address, bytes, flags);
  }
  return on_parts(
      parts, [flags](const void* at, std::size_t n) { return os::kernel_lock(at, n, flags); },
      lock_far);
}

int unlock(const void* address, std::size_t bytes) {
  const std::uint64_t skipped = number(address) % kPageBytes;
  Parts parts;
  if (!split(pointer(number(address) - skipped), bytes + skipped, parts)) {
    return os::kernel_unlock(address, bytes);
  }
  return on_parts(parts, os::kernel_unlock, [](AddressRange far) {
    unlock_far(far);
    return 0;
  });
}

}  // namespace
}  // namespace isthmus::preload

using namespace isthmus::preload;

#define CALLER __builtin_return_address(0)

#pragma GCC visibility push(default)
extern "C" {

void* mmap(void* address, size_t bytes, int protection, int flags, int fd, off_t offset) noexcept {
  return map({address, bytes, protection, flags, fd, offset}, CALLER);
}

void* mmap64(void* address, size_t bytes, int protection, int flags, int fd,
             off64_t offset) noexcept {
  return map({address, bytes, protection, flags, fd, offset}, CALLER);
}

int munmap(void* address, size_t bytes) noexcept {
  Parts parts;
  if (!split(address, bytes, parts)) return isthmus::os::kernel_unmap(address, bytes);
  return on_parts(parts, isthmus::os::kernel_unmap, [](isthmus::os::AddressRange far) {
    release_far(far);
    return 0;
  });
}

void* mremap(void* address, size_t old_bytes, size_t new_bytes, int flags, ...) noexcept {
  void* new_address = nullptr;
  if ((flags & (MREMAP_FIXED | 4 /* MREMAP_DONTUNMAP */)) != 0) {
    va_list arguments;
    va_start(arguments, flags);
    new_address = va_arg(arguments, void*);
    va_end(arguments);
  }
  return remap({address, old_bytes, new_bytes, flags, new_address});
}

int madvise(void* address, size_t bytes, int advice) noexcept {
  return advise(address, bytes, advice);
}

// libc's own does nothing for POSIX_MADV_DONTNEED: what it means by it must not lose anything.
int posix_madvise(void* address, size_t bytes, int advice) noexcept {
  if (advice == POSIX_MADV_DONTNEED) return 0;
  const int saved_errno = errno;
  const int error = advise(address, bytes, advice) == 0 ? 0 : errno;
  errno = saved_errno;
  return error;
}

int mprotect(void* address, size_t bytes, int protection) noexcept {
  Parts parts;
  if (!split(address, bytes, parts)) {
    return isthmus::os::kernel_protect(address, bytes, protection);
  }
  return on_parts(
      parts,
      [protection](void* at, size_t n) { return isthmus::os::kernel_protect(at, n, protection); },
      [protection](isthmus::os::AddressRange far) { return protect_far(far, protection); });
}

int mlock(const void* address, size_t bytes) noexcept { return lock(address, bytes, 0); }

int mlock2(const void* address, size_t bytes, unsigned flags) noexcept {
  return lock(address, bytes, flags);
}

int munlock(const void* address, size_t bytes) noexcept { return unlock(address, bytes); }

// All would be the far region too, which does not fit here.
int mlockall(int flags) noexcept {
  return is_far_memory_on() ? fail_with(ENOMEM) : isthmus::os::kernel_lock_all(flags);
}

}  // extern "C"
#pragma GCC visibility pop
