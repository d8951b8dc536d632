// Memory of another process of this host, through the kernel.
//
// The kernel asks the same right as for attaching a debugger: same user, same capabilities, no
// stronger Yama setting. probe_process_memory() tells beforehand.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

class ProcessMemory {
 public:
  // Nothing is asked of the process or the kernel yet that could fail: the transfers will.
  explicit ProcessMemory(std::int32_t process_id);

  // Bytes moved, which may be fewer than asked when an address is not mapped; -1 and errno when
  // none. At most IOV_MAX (1024) pieces on each side.
  std::ptrdiff_t read(std::span<const iovec> local, std::span<const iovec> remote) const;
  std::ptrdiff_t write(std::span<const iovec> local, std::span<const iovec> remote) const;

 private:
  std::int32_t process_id_;
  // /proc/PID/mem: each transfer goes through a page of the kernel, but the right is asked for
  // only once. Up to a page that is quicker (0.95 µs instead of 1.25).
  Fd file_;
};

// memcpy that the kernel does: false instead of a fault where a page is missing or protected.
bool copy_memory_checked(void* to, const void* from, std::size_t bytes);

// Reads 8 bytes at `address` of the process and compares them with `expected`: true only when the
// process is reachable and is the one that put them there.
bool probe_process_memory(std::int32_t process_id, std::uint64_t address, std::uint64_t expected);

// Lets every process of this user reach us where Yama would restrict that to debuggers (mode 1).
void allow_process_memory_of_this_process();

}  // namespace isthmus::os
