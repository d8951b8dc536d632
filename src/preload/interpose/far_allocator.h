// The two heaps: jemalloc, whose memory is far, and libc's own, which is local.
//
// jemalloc is called by the functions that it gives to everybody: they are faster than its own
// interface (mallocx and its like), and answer as the standard demands. They are found by name in
// its library, since their names alone mean ours.
//
// Its library begins before far memory does, and maps its first extents, some MiB, locally: they
// are noted, since what lies there may be its own, and used up before the program runs.
//
// Threading: find_heaps() and use_up_early_extents() once, before the first other call; then any
// thread.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "os/address_range.h"

extern "C" {
void* __libc_malloc(std::size_t bytes);
void __libc_free(void* memory);
void* __libc_calloc(std::size_t count, std::size_t bytes);
void* __libc_realloc(void* memory, std::size_t bytes);
void* __libc_memalign(std::size_t alignment, std::size_t bytes);
}

namespace isthmus::preload {

struct Heaps {
  void* (*malloc)(std::size_t) = nullptr;
  void (*free)(void*) = nullptr;
  void* (*calloc)(std::size_t, std::size_t) = nullptr;
  void* (*realloc)(void*, std::size_t) = nullptr;
  void* (*memalign)(std::size_t, std::size_t) = nullptr;
  std::size_t (*usable_size)(void*) = nullptr;
  std::size_t (*local_usable_size)(void*) = nullptr;
};

extern constinit Heaps heaps;

// A mapping of jemalloc's before far memory was there.
void note_early_extent(os::AddressRange range);

// Whether what lies there was allocated by jemalloc, though it is not far.
bool is_early_extent(const void* memory);

// With far memory on, and outside of a RuntimeScope: from now on what jemalloc gives is far.
void use_up_early_extents();

// kUnsupported: the program has an allocator inside itself, which stands before ours.
Result<void> find_heaps();

}  // namespace isthmus::preload
