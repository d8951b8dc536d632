// Callers: who asks for memory, by the address it asks from.
//
// Threading: any thread; the first question comes before there is more than one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace isthmus::preload {

// Whether memory asked for from here stays local: ld.so, our libraries; libc for less than 64 KiB.
bool is_local_caller(const void* caller, std::size_t bytes);

bool is_allocator(const void* caller);  // jemalloc.

constexpr std::size_t kLeastFarBytes = 64u << 10;  // Of one mapping, or of one request of libc's.

}  // namespace isthmus::preload
