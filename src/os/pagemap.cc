#include "os/pagemap.h"

#include <fcntl.h>
#include <linux/membarrier.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace isthmus::os {
namespace {

// Newer than the headers of Debian 12: struct pm_scan_arg and its flags.
struct ScanRequest {
  std::uint64_t size;
  std::uint64_t flags;
  std::uint64_t start;
  std::uint64_t end;
  std::uint64_t walk_end;
  std::uint64_t buffer;
  std::uint64_t buffer_count;
  std::uint64_t max_pages;
  std::uint64_t inverted;
  std::uint64_t all_of;
  std::uint64_t any_of;
  std::uint64_t returned;
};
static_assert(sizeof(ScanRequest) == 96, "the size is part of the number of the call");
constexpr unsigned long kPagemapScan = _IOWR('f', 16, ScanRequest);
constexpr std::uint64_t kProtectMatching = 1u << 0;
constexpr std::uint64_t kCheckWpAsync = 1u << 1;
constexpr std::uint64_t kWritten = 1u << 1;

}  // namespace

Result<std::unique_ptr<Pagemap>> Pagemap::open() {
  Fd fd{::open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)};
  if (!fd) return fail_errno(errno, "open /proc/self/pagemap");
  ScanRequest nothing{};
  nothing.size = sizeof nothing;
  if (ioctl(fd.get(), kPagemapScan, &nothing) != 0 && errno == ENOTTY) {
    return fail(ErrorCode::kUnsupported,
                "this kernel has no PAGEMAP_SCAN; Linux 6.7 and later have it");
  }
  return std::unique_ptr<Pagemap>(new Pagemap(std::move(fd)));
}

Result<ScanStep> Pagemap::scan_written(AddressRange range, std::span<PageRun> buffer,
                                       AfterScan after) const {
  ScanRequest request{};
  request.size = sizeof request;
  request.flags = kCheckWpAsync | (after == AfterScan::kProtectAgain ? kProtectMatching : 0);
  request.start = range.start;
  request.end = range.end();
  // SAFETY: the kernel writes page_regions there, which is what PageRun is.
  request.buffer = reinterpret_cast<std::uintptr_t>(buffer.data());
  request.buffer_count = buffer.size();
  request.all_of = kWritten;
  request.returned = kWritten;
  const int runs = ioctl(fd_.get(), kPagemapScan, &request);
  if (runs >= 0) return ScanStep{static_cast<std::size_t>(runs), request.walk_end};
  if (errno == EPERM) {
    return fail(ErrorCode::kDenied, "the range has memory that no userfaultfd of WP_ASYNC tracks");
  }
  return fail_errno(errno, "scan the page table for written pages");
}

bool is_mapped(AddressRange range) {
  std::array<unsigned char, 4096> residency;  // One byte a page: 16 MiB at a time.
  for (std::uint64_t at = range.start; at < range.end();) {
    const std::uint64_t bytes = std::min(range.end() - at, residency.size() * kPageBytes);
    // SAFETY: only the kernel follows the address.
    if (mincore(reinterpret_cast<void*>(at), bytes, residency.data()) != 0) return false;
    at += bytes;
  }
  return true;
}

bool drain_stores_of_all_threads() {
  // Registering again is a cheap no-op, and must be repeated after a fork.
  if (syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) != 0) return false;
  return syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0;
}

}  // namespace isthmus::os
