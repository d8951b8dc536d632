#include "os/page_drop.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

namespace isthmus::os {
namespace {

static_assert(sizeof(AddressRange) == sizeof(iovec));
static_assert(offsetof(AddressRange, bytes) == offsetof(iovec, iov_len));

void* pointer(std::uint64_t address) {
  // SAFETY: only the kernel follows it.
  return reinterpret_cast<void*>(address);
}

}  // namespace

PageDrop::PageDrop() : self_(static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0))) {
  const iovec nothing{};
  if (self_ && syscall(SYS_process_madvise, self_.get(), &nothing, 1, MADV_DONTNEED, 0) != 0) {
    self_ = Fd{};
  }
}

void PageDrop::drop(std::span<const AddressRange> ranges) const {
  const int kept = errno;
  if (ranges.size() > 1 && self_) {
    std::uint64_t bytes = 0;
    for (const AddressRange& range : ranges) bytes += range.bytes;
    // SAFETY: AddressRange has the layout of iovec, as asserted above.
    const auto* pieces = reinterpret_cast<const iovec*>(ranges.data());
    const long done =
        syscall(SYS_process_madvise, self_.get(), pieces, ranges.size(), MADV_DONTNEED, 0);
    if (done >= 0 && static_cast<std::uint64_t>(done) == bytes) {
      errno = kept;
      return;
    }
  }
  // Dropping twice what was dropped already changes nothing.
  for (const AddressRange& range : ranges) {
    madvise(pointer(range.start), range.bytes, MADV_DONTNEED);
  }
  errno = kept;
}

bool populate_for_writing(AddressRange range) {
  constexpr int kPopulateWrite = 23;  // MADV_POPULATE_WRITE, newer than some headers.
  const int kept = errno;
  const bool done = madvise(pointer(range.start), range.bytes, kPopulateWrite) == 0;
  errno = kept;
  return done;
}

bool is_page_present(std::uint64_t address) {
  const int kept = errno;
  unsigned char present = 0;
  const int status = mincore(pointer(address), kPageBytes, &present);
  errno = kept;
  return status == 0 && (present & 1) != 0;
}

}  // namespace isthmus::os
