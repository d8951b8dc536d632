#include "preload/interpose/far_allocator.h"

#include <dlfcn.h>
#include <jemalloc/jemalloc.h>

#include <algorithm>
#include <array>
#include <string>

#include "preload/interpose/far_runtime.h"

namespace isthmus::preload {

constinit Heaps heaps;

namespace {

template <class Function>
bool find(void* library, const char* name, Function*& function) {
  // SAFETY: the libraries give these names to functions of these types.
  function = reinterpret_cast<Function*>(dlsym(library, name));
  return function != nullptr;
}

bool is_in_front() {
  Dl_info first{};
  Dl_info ours{};
  return dladdr(dlsym(RTLD_DEFAULT, "malloc"), &first) != 0 &&
         dladdr(&far_runtime, &ours) != 0 && first.dli_fbase == ours.dli_fbase;
}

// Before main() there is one thread.
constexpr std::size_t kMostEarlyExtents = 16;
constinit std::array<os::AddressRange, kMostEarlyExtents> early_extents{};
constinit std::size_t early_extent_count = 0;

// Takes all that arena 0 can give of this size without mapping more. It is never touched.
void use_up(std::size_t bytes) {
  constexpr int kFlags = MALLOCX_ARENA(0) | MALLOCX_TCACHE_NONE;
  for (;;) {
    void* const memory = mallocx(bytes, kFlags);
    if (memory != nullptr && !is_far(memory)) continue;
    if (memory != nullptr) dallocx(memory, kFlags);
    return;
  }
}

template <class Value>
Value setting(const char* name) {
  Value value{};
  std::size_t bytes = sizeof value;
  mallctl(name, &value, &bytes, nullptr, 0);
  return value;
}

}  // namespace

void note_early_extent(os::AddressRange range) {
  // More than there is room for would be a jemalloc that begins otherwise than any known.
  if (early_extent_count < kMostEarlyExtents) early_extents[early_extent_count++] = range;
}

bool is_early_extent(const void* memory) {
  const auto address = reinterpret_cast<std::uint64_t>(memory);
  const bool noted = std::any_of(
      early_extents.begin(), early_extents.begin() + early_extent_count,
      [address](os::AddressRange range) { return address - range.start < range.bytes; });
  if (!noted) return false;
  // Parts of them may have been given back: jemalloc itself knows.
  unsigned arena = 0;
  std::size_t bytes = sizeof arena;
  return mallctl("arenas.lookup", &arena, &bytes, &memory, sizeof memory) == 0;
}

void use_up_early_extents() {
  constexpr std::size_t kMostBytes = 8u << 20;  // A first extent has 2 MiB.
  const auto page = setting<std::size_t>("arenas.page");
  for (std::size_t bytes = kMostBytes; bytes >= 4 * page; bytes /= 2) use_up(bytes);
  const auto bins = setting<unsigned>("arenas.nbins");
  for (unsigned bin = 0; bin < bins; ++bin) {
    use_up(setting<std::size_t>(("arenas.bin." + std::to_string(bin) + ".size").c_str()));
  }
}

Result<void> find_heaps() {
  if (!is_in_front()) {
    return fail(ErrorCode::kUnsupported,
                "the program has a malloc of its own, so its memory cannot be made far; run it "
                "without --far-memory");
  }
  void* const jemalloc = dlopen("libjemalloc.so.2", RTLD_LAZY | RTLD_NOLOAD);
  void* const libc = dlopen("libc.so.6", RTLD_LAZY | RTLD_NOLOAD);
  const bool all = jemalloc != nullptr && libc != nullptr &&
                   find(jemalloc, "malloc", heaps.malloc) && find(jemalloc, "free", heaps.free) &&
                   find(jemalloc, "calloc", heaps.calloc) &&
                   find(jemalloc, "realloc", heaps.realloc) &&
                   find(jemalloc, "memalign", heaps.memalign) &&
                   find(jemalloc, "malloc_usable_size", heaps.usable_size) &&
                   find(libc, "malloc_usable_size", heaps.local_usable_size);
  if (!all) return fail(ErrorCode::kNotFound, "libjemalloc.so.2 or libc.so.6 is not as expected");
  return {};
}

}  // namespace isthmus::preload

#pragma GCC visibility push(default)
extern "C" {

// What jemalloc reads before all else. Its memory comes from mmap alone, so that all of it is far;
// realloc to nothing frees, as libc's does.
extern const char* malloc_conf;
const char* malloc_conf = "dss:disabled,zero_realloc:free";

}  // extern "C"
#pragma GCC visibility pop
