#include "os/process_memory.h"

#include <sys/prctl.h>
#include <unistd.h>

namespace isthmus::os {

std::ptrdiff_t read_process_memory(std::int32_t process_id, std::span<const iovec> local,
                                   std::span<const iovec> remote) {
  return process_vm_readv(process_id, local.data(), local.size(), remote.data(), remote.size(), 0);
}

std::ptrdiff_t write_process_memory(std::int32_t process_id, std::span<const iovec> local,
                                    std::span<const iovec> remote) {
  return process_vm_writev(process_id, local.data(), local.size(), remote.data(), remote.size(),
                           0);
}

bool copy_memory_checked(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return true;
  const iovec local{const_cast<void*>(from), bytes};
  const iovec remote{to, bytes};
  return write_process_memory(getpid(), {&local, 1}, {&remote, 1}) ==
         static_cast<std::ptrdiff_t>(bytes);
}

bool probe_process_memory(std::int32_t process_id, std::uint64_t address, std::uint64_t expected) {
  std::uint64_t found = 0;
  const iovec local{&found, sizeof found};
  // SAFETY: an address of the other process; only the kernel follows it.
  const iovec remote{reinterpret_cast<void*>(address), sizeof found};
  return read_process_memory(process_id, {&local, 1}, {&remote, 1}) ==
             static_cast<std::ptrdiff_t>(sizeof found) &&
         found == expected;
}

void allow_process_memory_of_this_process() {
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);  // Fails where there is no Yama: then nothing to do.
}

}  // namespace isthmus::os
