#include "os/userfault.h"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>

namespace isthmus::os {
namespace {

// Newer than the headers of Debian 12.
constexpr std::uint64_t kContinueWp = 1u << 1;
struct MoveRequest {
  std::uint64_t to;
  std::uint64_t from;
  std::uint64_t bytes;
  std::uint64_t mode;
  std::int64_t moved;
};
static_assert(sizeof(MoveRequest) == 40, "the size is part of the number of the call");
constexpr unsigned long kMove = _IOWR(UFFDIO, 0x05, MoveRequest);

struct Opened {
  Fd fd;
  UffdOrigin origin;
};

Result<Opened> open_descriptor() {
  constexpr int kFlags = O_CLOEXEC | O_NONBLOCK;
  if (const Fd device{::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC)}) {
    Fd fd{ioctl(device.get(), USERFAULTFD_IOC_NEW, kFlags)};
    if (fd) return Opened{std::move(fd), UffdOrigin::kDevice};
  }
  if (Fd fd{static_cast<int>(syscall(SYS_userfaultfd, kFlags))}) {
    return Opened{std::move(fd), UffdOrigin::kSystemCall};
  }
  if (Fd fd{static_cast<int>(syscall(SYS_userfaultfd, kFlags | UFFD_USER_MODE_ONLY))}) {
    return Opened{std::move(fd), UffdOrigin::kUserModeOnly};
  }
  return fail_errno(errno,
                    "open a userfaultfd by /dev/userfaultfd, as a system call, and for user mode "
                    "only (a seccomp filter may forbid it, or the kernel lack it)");
}

Result<UffdFeatures> shake_hands(const Fd& fd, UffdFeatures wanted) {
  uffdio_api api{UFFD_API, wanted, 0};
  if (ioctl(fd.get(), UFFDIO_API, &api) != 0) {
    return fail_errno(errno, "agree on features with userfaultfd");
  }
  return api.features;
}

uffdio_range raw(AddressRange range) { return {range.start, range.bytes}; }

UffdVerdict verdict_of(int error) {
  switch (error) {
    case EEXIST: return UffdVerdict::kExists;
    case EAGAIN: return UffdVerdict::kRetry;
    case ENOENT:
    case ESRCH: return UffdVerdict::kGone;
    case ENOMEM:
    case ENOSPC: return UffdVerdict::kNoMemory;
    case EFAULT:
    case EBUSY: return UffdVerdict::kBadSource;
    default: return UffdVerdict::kInvalid;
  }
}

UffdEvent event_of(const uffd_msg& message) {
  UffdEvent event;
  switch (message.event) {
    case UFFD_EVENT_FORK:
      event.kind = UffdEventKind::kFork;
      event.child = Fd{static_cast<int>(message.arg.fork.ufd)};
      break;
    case UFFD_EVENT_REMAP:
      event.kind = UffdEventKind::kRemap;
      event.range = {message.arg.remap.from, message.arg.remap.len};
      event.moved_to = message.arg.remap.to;
      break;
    case UFFD_EVENT_REMOVE:
    case UFFD_EVENT_UNMAP:
      event.kind = message.event == UFFD_EVENT_REMOVE ? UffdEventKind::kRemove
                                                      : UffdEventKind::kUnmap;
      event.range = {message.arg.remove.start, message.arg.remove.end - message.arg.remove.start};
      break;
    default: {
      const auto flags = message.arg.pagefault.flags;
      event.cause = (flags & UFFD_PAGEFAULT_FLAG_WP) != 0      ? UffdCause::kWriteProtected
                    : (flags & UFFD_PAGEFAULT_FLAG_MINOR) != 0 ? UffdCause::kMinor
                                                               : UffdCause::kMissing;
      // A fault on write protection is a write, whether or not the kernel sets the flag too.
      event.access = (flags & (UFFD_PAGEFAULT_FLAG_WRITE | UFFD_PAGEFAULT_FLAG_WP)) != 0
                         ? UffdAccess::kWrite
                         : UffdAccess::kRead;
      event.address = message.arg.pagefault.address;
      event.thread_id = message.arg.pagefault.feat.ptid;
    }
  }
  return event;
}

// Puts errno back: the caller may be a signal handler.
class ErrnoKeeper {
 public:
  ~ErrnoKeeper() { errno = kept_; }

 private:
  int kept_ = errno;
};

}  // namespace

const char* to_string(UffdOrigin origin) {
  switch (origin) {
    case UffdOrigin::kDevice: return "/dev/userfaultfd";
    case UffdOrigin::kSystemCall: return "system call";
    case UffdOrigin::kUserModeOnly: return "user mode only";
  }
  return "unknown";
}

const char* to_string(UffdVerdict verdict) {
  switch (verdict) {
    case UffdVerdict::kDone: return "done";
    case UffdVerdict::kExists: return "exists";
    case UffdVerdict::kRetry: return "retry";
    case UffdVerdict::kGone: return "gone";
    case UffdVerdict::kNoMemory: return "no memory";
    case UffdVerdict::kBadSource: return "bad source";
    case UffdVerdict::kInvalid: return "invalid";
  }
  return "unknown";
}

Result<UffdFeatures> Userfault::supported() {
  const Opened opened = ISTHMUS_TRY(open_descriptor());
  return shake_hands(opened.fd, 0);
}

Result<std::unique_ptr<Userfault>> Userfault::open(UffdOptions options) {
  // The kernel shakes hands once for each descriptor, and refuses all when it lacks one feature.
  const UffdFeatures there = ISTHMUS_TRY(supported());
  if (const UffdFeatures missing = options.required & ~there; missing != 0) {
    return fail(ErrorCode::kUnsupported,
                "this kernel's userfaultfd lacks the features %#llx; it has %#llx",
                static_cast<unsigned long long>(missing), static_cast<unsigned long long>(there));
  }
  const UffdFeatures wanted = options.required | (options.optional & there);
  Opened opened = ISTHMUS_TRY(open_descriptor());
  ISTHMUS_TRY(shake_hands(opened.fd, wanted));
  return std::unique_ptr<Userfault>(new Userfault(std::move(opened.fd), opened.origin, wanted));
}

std::unique_ptr<Userfault> Userfault::adopt(Fd child, UffdFeatures features) {
  return std::unique_ptr<Userfault>(
      new Userfault(std::move(child), UffdOrigin::kSystemCall, features));
}

Result<void> Userfault::register_range(AddressRange range, UffdModes modes) {
  uffdio_register request{raw(range), modes, 0};
  if (ioctl(fd_.get(), UFFDIO_REGISTER, &request) == 0) return {};
  return fail_errno(errno, "register " + std::to_string(range.bytes) + " bytes with userfaultfd");
}

Result<void> Userfault::unregister_range(AddressRange range) {
  uffdio_range request = raw(range);
  if (ioctl(fd_.get(), UFFDIO_UNREGISTER, &request) == 0) return {};
  return fail_errno(errno, "unregister " + std::to_string(range.bytes) +
                               " bytes from userfaultfd");
}

UffdProgress Userfault::finish(int status, std::int64_t done, std::uint64_t wanted) const {
  if (status == 0) return {UffdVerdict::kDone, wanted};
  // The kernel counts in the request what it did, or puts a negated errno there.
  const std::uint64_t bytes = done > 0 ? static_cast<std::uint64_t>(done) : 0;
  // EAGAIN after a part: the next call tells whether the page is there or the mapping changes.
  return {verdict_of(errno), std::min(bytes, wanted)};
}

UffdProgress Userfault::copy(AddressRange to, const void* source,
                             UffdProtection protection) const {
  const ErrnoKeeper keeper;
  // SAFETY: only the kernel follows the address.
  uffdio_copy request{to.start, reinterpret_cast<std::uintptr_t>(source), to.bytes,
                      protection == UffdProtection::kOn ? UFFDIO_COPY_MODE_WP : 0, 0};
  const int status = ioctl(fd_.get(), UFFDIO_COPY, &request);
  return finish(status, request.copy, to.bytes);
}

UffdProgress Userfault::zero(AddressRange range) const {
  const ErrnoKeeper keeper;
  uffdio_zeropage request{raw(range), 0, 0};
  const int status = ioctl(fd_.get(), UFFDIO_ZEROPAGE, &request);
  return finish(status, request.zeropage, range.bytes);
}

UffdProgress Userfault::proceed(AddressRange range, UffdProtection protection) const {
  const ErrnoKeeper keeper;
  uffdio_continue request{raw(range), protection == UffdProtection::kOn ? kContinueWp : 0, 0};
  const int status = ioctl(fd_.get(), UFFDIO_CONTINUE, &request);
  return finish(status, request.mapped, range.bytes);
}

UffdProgress Userfault::move(AddressRange to, std::uint64_t from) const {
  const ErrnoKeeper keeper;
  MoveRequest request{to.start, from, to.bytes, 0, 0};
  const int status = ioctl(fd_.get(), kMove, &request);
  return finish(status, request.moved, to.bytes);
}

UffdProgress Userfault::protect(AddressRange range, UffdProtection protection) const {
  const ErrnoKeeper keeper;
  uffdio_writeprotect request{raw(range),
                              protection == UffdProtection::kOn ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
  return finish(ioctl(fd_.get(), UFFDIO_WRITEPROTECT, &request), 0, range.bytes);
}

UffdProgress Userfault::wake(AddressRange range) const {
  const ErrnoKeeper keeper;
  uffdio_range request = raw(range);
  return finish(ioctl(fd_.get(), UFFDIO_WAKE, &request), 0, range.bytes);
}

Result<std::size_t> Userfault::read_events(std::span<UffdEvent> events) const {
  std::array<uffd_msg, 16> messages;
  std::size_t count = 0;
  while (count < events.size()) {
    const std::size_t room = std::min(messages.size(), events.size() - count);
    const ssize_t bytes = ::read(fd_.get(), messages.data(), room * sizeof(uffd_msg));
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0 && errno == EAGAIN) break;
    if (bytes < 0 && count > 0) break;  // The next call meets the same error, with nothing to lose.
    if (bytes < 0) return fail_errno(errno, "read the events of a userfaultfd");
    if (bytes == 0) break;
    const std::size_t got = static_cast<std::size_t>(bytes) / sizeof(uffd_msg);
    for (std::size_t i = 0; i < got; ++i) events[count++] = event_of(messages[i]);
    if (got < room) break;
  }
  return count;
}

}  // namespace isthmus::os
