#include "os/process_memory.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <string>

namespace isthmus::os {

namespace {

constexpr std::size_t kSmallBytes = 4096;

// Bytes of one small piece to another; 0 for anything else.
std::size_t small_transfer(std::span<const iovec> local, std::span<const iovec> remote) {
  if (local.size() != 1 || remote.size() != 1) return 0;
  const std::size_t bytes = std::min(local[0].iov_len, remote[0].iov_len);
  return bytes <= kSmallBytes ? bytes : 0;
}

// SAFETY: an address of the other process; only the kernel follows it.
off_t offset_of(const iovec& remote) { return reinterpret_cast<off_t>(remote.iov_base); }

}  // namespace

ProcessMemory::ProcessMemory(std::int32_t process_id)
    : process_id_(process_id),
      file_(open(("/proc/" + std::to_string(process_id) + "/mem").c_str(), O_RDWR | O_CLOEXEC)) {}

std::ptrdiff_t ProcessMemory::read(std::span<const iovec> local,
                                   std::span<const iovec> remote) const {
  if (const std::size_t bytes = small_transfer(local, remote); bytes > 0 && file_) {
    return pread(file_.get(), local[0].iov_base, bytes, offset_of(remote[0]));
  }
  return process_vm_readv(process_id_, local.data(), local.size(), remote.data(), remote.size(),
                          0);
}

std::ptrdiff_t ProcessMemory::write(std::span<const iovec> local,
                                    std::span<const iovec> remote) const {
  if (const std::size_t bytes = small_transfer(local, remote); bytes > 0 && file_) {
    return pwrite(file_.get(), local[0].iov_base, bytes, offset_of(remote[0]));
  }
  return process_vm_writev(process_id_, local.data(), local.size(), remote.data(), remote.size(),
                           0);
}

bool copy_memory_checked(void* to, const void* from, std::size_t bytes) {
  if (bytes == 0) return true;
  const iovec local{const_cast<void*>(from), bytes};
  const iovec remote{to, bytes};
  return process_vm_writev(getpid(), &local, 1, &remote, 1, 0) ==
         static_cast<std::ptrdiff_t>(bytes);
}

bool probe_process_memory(std::int32_t process_id, std::uint64_t address, std::uint64_t expected) {
  std::uint64_t found = 0;
  const iovec local{&found, sizeof found};
  // SAFETY: an address of the other process; only the kernel follows it.
  const iovec remote{reinterpret_cast<void*>(address), sizeof found};
  return process_vm_readv(process_id, &local, 1, &remote, 1, 0) ==
             static_cast<std::ptrdiff_t>(sizeof found) &&
         found == expected;
}

void allow_process_memory_of_this_process() {
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);  // Fails where there is no Yama: then nothing to do.
}

}  // namespace isthmus::os
