// Userfault: the kernel's userfaultfd, through which a program serves its own page faults.
//
// Primer: ranges of the address space are registered with a descriptor. A fault there is a message
// on the descriptor, or with kUffdSigbus a SIGBUS in the thread that faulted; whoever serves it
// installs the page with copy(), zero() or proceed(). Write protection (WP) tells of first writes:
// as a fault, or with kUffdWpAsync by a mark that the kernel sets itself and os/pagemap reads.
//
// Cost, measured on two virtual processors: copy 1.1 µs a page at any count; zero 0.2 µs, 0.02 a
// page at 512; protect 0.85 µs, 0.05 a page at 64, and 16 µs a call while another thread runs (it
// must drop its translations); proceed 0.28 µs, 0.09 a page from 16; move 0.9 µs, 0.05 at 64.
//
// copy() to wake() allocate nothing and keep errno: a signal handler may call them.
//
// Threading: any thread, at any time; the kernel orders the calls.
// Spec: Linux man-pages, userfaultfd(2) and ioctl_userfaultfd(2).
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "os/address_range.h"
#include "os/fd.h"

namespace isthmus::os {

// A set of features, as the kernel's bits. Those past kUffdWpShared are newer than Debian 12.
using UffdFeatures = std::uint64_t;
constexpr UffdFeatures kUffdWp = 1u << 0;             // WP on anonymous memory.
constexpr UffdFeatures kUffdEventFork = 1u << 1;      // fork() waits until the event is read.
constexpr UffdFeatures kUffdEventRemap = 1u << 2;
constexpr UffdFeatures kUffdEventRemove = 1u << 3;    // madvise(MADV_DONTNEED) and its like.
constexpr UffdFeatures kUffdMissingShared = 1u << 5;  // MISSING on shared memory.
constexpr UffdFeatures kUffdEventUnmap = 1u << 6;
constexpr UffdFeatures kUffdSigbus = 1u << 7;
constexpr UffdFeatures kUffdThreadId = 1u << 8;
constexpr UffdFeatures kUffdMinorShared = 1u << 10;   // MINOR on shared memory.
constexpr UffdFeatures kUffdExactAddress = 1u << 11;
constexpr UffdFeatures kUffdWpShared = 1u << 12;
constexpr UffdFeatures kUffdWpUnpopulated = 1u << 13;  // Linux 6.4: WP where no page is yet.
constexpr UffdFeatures kUffdWpAsync = 1u << 15;        // Linux 6.7.
constexpr UffdFeatures kUffdMove = 1u << 16;           // Linux 6.8.

// Which way in the kernel gave us, best first.
enum class UffdOrigin : std::uint8_t {
  kDevice,        // /dev/userfaultfd: the device file's permissions decided.
  kSystemCall,    // A privileged process, or vm.unprivileged_userfaultfd is 1.
  kUserModeOnly,  // A system call given an address of a missing page fails with EFAULT.
};
const char* to_string(UffdOrigin origin);

struct UffdOptions {
  UffdFeatures required = 0;  // kUnsupported when the kernel lacks one.
  UffdFeatures optional = 0;  // Taken where there; features() tells.
};

// What faults in a registered range: a set.
using UffdModes = std::uint64_t;
constexpr UffdModes kUffdRegisterMissing = 1u << 0;
constexpr UffdModes kUffdRegisterWp = 1u << 1;
constexpr UffdModes kUffdRegisterMinor = 1u << 2;  // In the page cache, not in our page table.

enum class UffdVerdict : std::uint8_t {
  kDone,      // All of it.
  kExists,    // A page is there already at `bytes`; wake() its waiters, go on behind it.
  kRetry,     // The address space is being changed: read the events, then call again.
  kGone,      // The range is not mapped or not registered any more: forget it.
  kNoMemory,  // The kernel has no page, or the memory group's limit is reached.
  kBadSource,  // The bytes to copy cannot be read, or the page to move is shared or pinned.
  kInvalid,   // Not whole pages, or not a mode in which the range is registered: our mistake.
};
const char* to_string(UffdVerdict verdict);

struct UffdProgress {
  UffdVerdict verdict;
  std::uint64_t bytes;  // Installed before the verdict.
};

enum class UffdEventKind : std::uint8_t { kFault, kFork, kRemap, kRemove, kUnmap };
enum class UffdCause : std::uint8_t { kMissing, kWriteProtected, kMinor };
enum class UffdAccess : std::uint8_t { kRead, kWrite };

struct UffdEvent {
  UffdEventKind kind = UffdEventKind::kFault;
  UffdCause cause = UffdCause::kMissing;     // kFault.
  UffdAccess access = UffdAccess::kRead;     // kFault.
  std::uint32_t thread_id = 0;               // kFault, with kUffdThreadId.
  std::uint64_t address = 0;                 // kFault: of the page; exact with kUffdExactAddress.
  AddressRange range;                        // kRemap: where it was. kRemove, kUnmap: what went.
  std::uint64_t moved_to = 0;                // kRemap.
  Fd child;                                  // kFork: the userfaultfd of the child's memory.
};

enum class UffdProtection : std::uint8_t { kOff, kOn };

class Userfault {
 public:
  // kDenied: no way in; the message says which settings would open one. The descriptor does not
  // block and is closed by exec.
  static Result<std::unique_ptr<Userfault>> open(UffdOptions options);
  // The features of this kernel.
  static Result<UffdFeatures> supported();
  // Serves the memory of a child, from an event kFork.
  static std::unique_ptr<Userfault> adopt(Fd child, UffdFeatures features);

  UffdOrigin origin() const { return origin_; }
  UffdFeatures features() const { return features_; }
  bool has(UffdFeatures wanted) const { return (features_ & wanted) == wanted; }
  int fd() const { return fd_.get(); }  // Readable when there are events.

  // About 0.5 µs; holes in the range are passed over. kBusy: registered with another userfaultfd.
  // kInvalid: nothing mapped there, or memory of a kind that cannot be served in these modes.
  Result<void> register_range(AddressRange range, UffdModes modes);
  // Its write protection goes too, and whoever waits for a page there faults again.
  Result<void> unregister_range(AddressRange range);

  // Installs pages with the bytes at `source` and wakes who waits for them. kOn: write protected.
  UffdProgress copy(AddressRange to, const void* source, UffdProtection protection) const;
  // Anonymous memory only: installs the shared page of zeros.
  UffdProgress zero(AddressRange range) const;
  // UFFDIO_CONTINUE: maps what the page cache has. kOn needs Linux 6.4.
  UffdProgress proceed(AddressRange range, UffdProtection protection) const;
  // Needs kUffdMove: moves anonymous pages out of `from`. Their WP marks are lost.
  UffdProgress move(AddressRange to, std::uint64_t from) const;
  // All or nothing. kOff wakes who waits.
  UffdProgress protect(AddressRange range, UffdProtection protection) const;
  UffdProgress wake(AddressRange range) const;

  // Up to events.size() events; 0 when there are none now.
  Result<std::size_t> read_events(std::span<UffdEvent> events) const;

 private:
  Userfault(Fd fd, UffdOrigin origin, UffdFeatures features)
      : fd_(std::move(fd)), origin_(origin), features_(features) {}

  UffdProgress finish(int status, std::int64_t done, std::uint64_t wanted) const;

  Fd fd_;
  UffdOrigin origin_;
  UffdFeatures features_;
};

}  // namespace isthmus::os
