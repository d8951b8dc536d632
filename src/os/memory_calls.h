// The kernel's calls about memory, as they are: what stands in front of libc's functions for them
// ends here, where no other interposed function can come between.
//
// Return values and errno are those of the system calls.
//
// Threading: any thread, at any time, also in signal handlers.
#pragma once

#include <cstddef>
#include <cstdint>

#include "os/address_range.h"

namespace isthmus::os {

struct MapRequest {
  void* address = nullptr;
  std::size_t bytes = 0;
  int protection = 0;
  int flags = 0;
  int fd = -1;
  std::int64_t offset = 0;
};

struct RemapRequest {
  void* address = nullptr;
  std::size_t old_bytes = 0;
  std::size_t new_bytes = 0;
  int flags = 0;
  void* new_address = nullptr;
};

void* kernel_map(const MapRequest& request);
int kernel_unmap(void* address, std::size_t bytes);
void* kernel_remap(const RemapRequest& request);
int kernel_advise(void* address, std::size_t bytes, int advice);
int kernel_protect(void* address, std::size_t bytes, int protection);
int kernel_lock(const void* address, std::size_t bytes, unsigned flags);
int kernel_unlock(const void* address, std::size_t bytes);
int kernel_lock_all(int flags);

// The memory of this machine; 0: unknown.
std::uint64_t physical_memory_bytes();

}  // namespace isthmus::os
