#include "preload/interpose/far_calls.h"

#include <sched.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdint>
#include <cstring>
#include <span>

#include "os/signal_calls.h"
#include "os/syscall_dispatch.h"
#include "preload/call_shapes.h"
#include "preload/interpose/far_runtime.h"

namespace isthmus::preload {
namespace {

using os::AddressRange;
using os::CallArguments;
using os::CaughtCall;
using os::kPageBytes;
using os::UffdAccess;

constexpr std::size_t kMostRanges = IOV_MAX + 8;  // Of one call: vectors, and what is beside them.
constexpr std::size_t kMostKept = 128;            // Of a thread; more are brought here, not kept.
constexpr std::size_t kMostCut = 32;              // Vectors.
constexpr std::uint64_t kMostAtOnce = 1u << 20;  // Bytes kept for one call; more goes in parts.
constexpr std::uint64_t kMostTextBytes = 128u << 10;  // Of one argument of execve.
constexpr std::uint64_t kMoreStructBytes = 64u << 10;
constexpr int kMostTries = 64;

bool is_far_number(std::uint64_t address) {
  return is_far(reinterpret_cast<const void*>(address));
}

// The far pages of these bytes.
AddressRange far_pages(std::uint64_t start, std::uint64_t bytes) {
  const std::uint64_t region_end = far_runtime.start + far_runtime.bytes.load();
  const std::uint64_t end = bytes > ~start ? ~std::uint64_t{0} : start + bytes;
  const std::uint64_t first = std::max(start, far_runtime.start) / kPageBytes * kPageBytes;
  const std::uint64_t last = std::min(end, region_end);
  if (first >= last) return {};
  const std::uint64_t whole = (last + kPageBytes - 1) / kPageBytes * kPageBytes;
  return {first, whole - first};
}

// Around calls of the pager.
struct PagerScope {
  RuntimeScope runtime;
  os::DirectCalls direct;
};

// Pins of this thread, with the handler that made them. A handler that was left by longjmp() leaves
// its pins: whoever comes next, further out on the same stack, finds them and lets them go.
struct Kept {
  std::uint64_t frame;
  AddressRange range;
};
struct KeptBook {
  std::array<Kept, kMostKept> entries;
  std::size_t count;
};
thread_local constinit KeptBook kept{};

// Of the fault that this thread serves; there is one at a time.
thread_local constinit std::uint8_t before_serving = 0;

void let_go_down_to(std::size_t count) {
  if (kept.count <= count) return;
  const PagerScope scope;
  while (kept.count > count) far_runtime.pager->unpin(kept.entries[--kept.count].range);
}

void let_go_abandoned(std::uint64_t frame) {
  std::size_t count = kept.count;
  while (count > 0 && kept.entries[count - 1].frame <= frame) --count;
  let_go_down_to(count);
}

// What a call needs here.
class Needs {
 public:
  void add(std::uint64_t start, std::uint64_t bytes, KernelAccess access) {
    const AddressRange range = far_pages(start, bytes);
    if (range.bytes == 0) return;
    const UffdAccess wanted =
        access == KernelAccess::kWrites ? UffdAccess::kWrite : UffdAccess::kRead;
    if (count_ > 0) {
      // Pieces of one buffer are one range.
      auto& [last, of_last] = ranges_[count_ - 1];
      if (of_last == wanted && last.start <= range.start && range.start <= last.end()) {
        last.bytes = std::max(last.end(), range.end()) - last.start;
        return;
      }
    }
    if (count_ == kMostRanges) {
      overflows_ = true;
      return;
    }
    ranges_[count_++] = {range, wanted};
  }

  bool any() const { return count_ > 0; }

  // Brings all here and keeps it. False: not all could be kept.
  bool keep(std::uint64_t frame) const {
    const PagerScope scope;
    for (std::size_t index = 0; index < count_; ++index) {
      if (kept.count == kept.entries.size()) return false;
      if (!far_runtime.pager->pin(ranges_[index].range, ranges_[index].access)) return false;
      kept.entries[kept.count++] = {frame, ranges_[index].range};
    }
    return !overflows_;
  }

  // Brings all here, for a moment at least.
  void touch() const {
    for (std::size_t index = 0; index < count_; ++index) {
      const auto& [range, access] = ranges_[index];
      for (std::uint64_t at = range.start; at < range.end(); at += kPageBytes) {
        auto* byte = reinterpret_cast<std::atomic<std::uint8_t>*>(at);
        if (access == UffdAccess::kWrite) {
          byte->fetch_or(0);
        } else {
          byte->load();
        }
      }
    }
  }

 private:
  struct Need {
    AddressRange range;
    UffdAccess access;
  };
  std::array<Need, kMostRanges> ranges_;
  std::size_t count_ = 0;
  bool overflows_ = false;
};

template <class Value>
const Value* at(std::uint64_t address) {
  return reinterpret_cast<const Value*>(address);
}

std::uint64_t number_of(const void* pointer) { return reinterpret_cast<std::uint64_t>(pointer); }

void add_text(Needs& needs, std::uint64_t address) {
  if (!is_far_number(address)) return;
  const std::uint64_t to_end = far_runtime.start + far_runtime.bytes.load() - address;
  const std::uint64_t most = std::min(to_end, kMostTextBytes);
  needs.add(address, strnlen(at<char>(address), most) + 1, KernelAccess::kReads);
}

void add_strings(Needs& needs, std::uint64_t address) {
  if (address == 0) return;
  std::size_t count = 0;
  const auto* texts = at<std::uint64_t>(address);
  while (texts[count] != 0) add_text(needs, texts[count++]);
  needs.add(address, (count + 1) * sizeof(std::uint64_t), KernelAccess::kReads);
}

bool any_far(const iovec* vectors, std::uint64_t count) {
  return std::any_of(vectors, vectors + count, [](const iovec& vector) {
    return far_pages(number_of(vector.iov_base), vector.iov_len).bytes > 0;
  });
}

// Vectors as far as they can be kept at once: room is left for the rest of the call beside them.
struct Cut {
  std::array<iovec, kMostCut> vectors;
  std::uint64_t count = 0;
  std::uint64_t bytes = 0;

  // From `skip` bytes on.
  void take(const iovec* from, std::uint64_t from_count, std::uint64_t skip) {
    for (std::uint64_t index = 0; index < from_count && count < vectors.size(); ++index) {
      iovec vector = from[index];
      const std::uint64_t skipped = std::min<std::uint64_t>(skip, vector.iov_len);
      skip -= skipped;
      if (skipped > 0 && skipped == vector.iov_len) continue;
      vector.iov_base = static_cast<char*>(vector.iov_base) + skipped;
      vector.iov_len = std::min<std::uint64_t>(vector.iov_len - skipped, kMostAtOnce - bytes);
      vectors[count++] = vector;
      bytes += vector.iov_len;
      if (bytes == kMostAtOnce) return;
    }
  }
};

void add_vectors(Needs& needs, std::uint64_t address, std::uint64_t count, KernelAccess access) {
  if (address == 0 || count > IOV_MAX) return;
  needs.add(address, count * sizeof(iovec), KernelAccess::kReads);
  for (const iovec& vector : std::span(at<iovec>(address), count)) {
    needs.add(number_of(vector.iov_base), vector.iov_len, access);
  }
}

// More than what a packet can have is a stream's, and a stream moves less than what is asked for.
std::uint64_t far_bytes(const msghdr& message) {
  std::uint64_t bytes = 0;
  for (const iovec& vector : std::span(message.msg_iov, message.msg_iovlen)) {
    const std::uint64_t whole = bytes + vector.iov_len;
    bytes = whole < bytes ? ~std::uint64_t{0} : whole;
  }
  return any_far(message.msg_iov, message.msg_iovlen) ? bytes : 0;
}

// Copies of a message's header and vectors.
struct Copies {
  msghdr message;
  Cut cut;
};

void add_message(Needs& needs, const msghdr& message, KernelAccess access) {
  needs.add(number_of(message.msg_name), message.msg_namelen, access);
  needs.add(number_of(message.msg_control), message.msg_controllen, access);
}

void add_messages(Needs& needs, CallArguments& arguments, const PointerShape& shape,
                  Copies& copies) {
  std::uint64_t& address = arguments[shape.argument];
  if (address == 0) return;
  if (shape.to == PointsTo::kMessage) {
    // What the kernel writes into it, it writes into the copy: see finish().
    msghdr& message = copies.message = *at<msghdr>(address);
    add_message(needs, message, shape.access);
    if (message.msg_iovlen <= IOV_MAX && far_bytes(message) > kMostAtOnce) {
      copies.cut.take(message.msg_iov, message.msg_iovlen, 0);
      message.msg_iov = copies.cut.vectors.data();
      message.msg_iovlen = copies.cut.count;
    }
    add_vectors(needs, number_of(message.msg_iov), message.msg_iovlen, shape.access);
    address = number_of(&message);
    return;
  }
  // As the kernel cuts it.
  const auto count = std::min(static_cast<std::uint32_t>(arguments[shape.count]),
                              std::uint32_t{IOV_MAX});
  const mmsghdr* messages = at<mmsghdr>(address);
  for (std::uint32_t index = 0; index < count; ++index) {
    const msghdr& message = messages[index].msg_hdr;
    add_message(needs, message, shape.access);
    add_vectors(needs, number_of(message.msg_iov), message.msg_iovlen, shape.access);
  }
  needs.add(address, count * sizeof(mmsghdr), KernelAccess::kWrites);
}

void add_shape(Needs& needs, CallArguments& arguments, const PointerShape& shape, Copies& copies) {
  std::uint64_t& address = arguments[shape.argument];
  switch (shape.to) {
    case PointsTo::kNothing: return;
    case PointsTo::kBytes:
      return needs.add(address, arguments[shape.count] * shape.unit, shape.access);
    case PointsTo::kText: return add_text(needs, address);
    case PointsTo::kStrings: return add_strings(needs, address);
    case PointsTo::kVectors:
      return add_vectors(needs, address, arguments[shape.count], shape.access);
    case PointsTo::kMessage:
    case PointsTo::kMessages: return add_messages(needs, arguments, shape, copies);
  }
}

bool is_named(const CallShape& shape, std::size_t argument) {
  return std::any_of(shape.pointers.begin(), shape.pointers.end(), [argument](const auto& one) {
    return one.to != PointsTo::kNothing && one.argument == argument;
  });
}

void add_structs(Needs& needs, const CallArguments& arguments, const CallShape& shape,
                 std::uint64_t bytes) {
  for (std::size_t index = 0; index < arguments.size(); ++index) {
    if (!is_far_number(arguments[index]) || is_named(shape, index)) continue;
    needs.add(arguments[index], bytes, KernelAccess::kWrites);
  }
}

// What the kernel has written into a copy of a message.
void finish(const CaughtCall& call, const CallShape& shape, const Copies& copies) {
  const PointerShape& first = shape.pointers[0];
  if (first.to != PointsTo::kMessage || first.access != KernelAccess::kWrites) return;
  auto* message = reinterpret_cast<msghdr*>(call.arguments[first.argument]);
  message->msg_namelen = copies.message.msg_namelen;
  message->msg_controllen = copies.message.msg_controllen;
  message->msg_flags = copies.message.msg_flags;
}

std::int64_t call_whole(const CaughtCall& call, const CallShape& shape,
                        const CallArguments& wanted) {
  CallArguments arguments = wanted;
  Needs needs;
  Copies copies;
  for (const PointerShape& pointer : shape.pointers) {
    add_shape(needs, arguments, pointer, copies);
  }
  add_structs(needs, arguments, shape, kMostStructBytes);
  if (!needs.any()) return os::direct_call(call.number, wanted);

  const std::size_t before = kept.count;
  const bool all_kept = needs.keep(number_of(&needs));
  std::int64_t result = os::direct_call(call.number, arguments);
  for (int tries = 0; result == -EFAULT && tries < kMostTries; ++tries) {
    if (all_kept && tries > 0) break;  // It means what it says.
    if (all_kept) add_structs(needs, arguments, shape, kMoreStructBytes);
    needs.touch();
    result = os::direct_call(call.number, arguments);
  }
  let_go_down_to(before);
  if (result >= 0) finish(call, shape, copies);
  return result;
}

bool is_file(std::uint64_t descriptor) {
  struct stat status;
  return os::direct_call(SYS_fstat, {descriptor, number_of(&status)}) == 0 &&
         (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode));
}

// Reads of anything but a file may have less than asked for, and must not wait for more.
bool goes_on(const CaughtCall& call, const CallShape& shape) {
  return shape.pointers[0].access == KernelAccess::kReads || is_file(call.arguments[0]);
}

constexpr std::uint64_t kFilePosition = ~std::uint64_t{0};  // As preadv2 has it.

// Calls cut_off(done, arguments), which says what to ask for next, and how many bytes that is; 0:
// nothing is left.
template <class CutOff>
std::int64_t call_in_parts(const CaughtCall& call, const CallShape& shape, CutOff&& cut_off) {
  std::int64_t done = 0;
  for (;;) {
    CallArguments arguments = call.arguments;
    const std::int64_t asked = cut_off(static_cast<std::uint64_t>(done), arguments);
    if (asked == 0 && done > 0) return done;
    std::uint64_t& offset = arguments[shape.offset];
    if (shape.offset != 0 && offset != kFilePosition) offset += static_cast<std::uint64_t>(done);
    const std::int64_t result = call_whole(call, shape, arguments);
    if (result < 0) return done > 0 ? done : result;
    done += result;
    if (result < asked || asked == 0 || !goes_on(call, shape)) return done;
  }
}

std::int64_t call_with_buffer(const CaughtCall& call, const CallShape& shape) {
  return call_in_parts(call, shape, [&call](std::uint64_t done, CallArguments& arguments) {
    arguments[1] += done;
    arguments[2] = std::min(call.arguments[2] - done, kMostAtOnce);
    return static_cast<std::int64_t>(arguments[2]);
  });
}

std::int64_t call_with_vectors(const CaughtCall& call, const CallShape& shape) {
  Cut cut;
  return call_in_parts(call, shape, [&](std::uint64_t done, CallArguments& arguments) {
    cut.count = cut.bytes = 0;
    cut.take(at<iovec>(arguments[1]), arguments[2], done);
    arguments[1] = number_of(cut.vectors.data());
    arguments[2] = cut.count;
    return static_cast<std::int64_t>(cut.bytes);
  });
}

std::int64_t start_thread(const CaughtCall& call) {
  const std::size_t before = kept.count;
  const std::int64_t result = os::direct_clone(call);
  // What a child by vfork() kept when it became another program.
  let_go_down_to(before);
  return result;
}

std::int64_t do_call(CaughtCall& call) {
  switch (call.number) {
    case SYS_clone:
    case SYS_clone3: return start_thread(call);
    case SYS_exit: os::direct_exit(call);
#if defined(__x86_64__)
    case SYS_vfork:  // It would go on on our stack; vfork() of libc is fork() then.
#endif
    case SYS_io_uring_setup:
    case SYS_io_setup: return -ENOSYS;
    default: break;
  }
  os::MaskCopy copy;
  os::filter_mask(call, copy);
  const CallShape shape = shape_of(call.number);
  if (shape.is_divisible) {
    const std::uint64_t count = call.arguments[2];
    if (shape.pointers[0].to == PointsTo::kBytes) {
      if (count > kMostAtOnce && far_pages(call.arguments[1], count).bytes > 0) {
        return call_with_buffer(call, shape);
      }
    } else if (count <= IOV_MAX && any_far(at<iovec>(call.arguments[1]), count)) {
      return call_with_vectors(call, shape);
    }
  }
  return call_whole(call, shape, call.arguments);
}

std::int64_t on_call(CaughtCall& call) {
  if (const auto done = os::do_signal_call(call)) return *done;
  const char here = 0;
  let_go_abandoned(number_of(&here));
  return do_call(call);
}

// The handler has all signals blocked.
void enter_serving() {
  ++runtime_depth;
  before_serving = os::enter_direct_calls();
}

void leave_serving() {
  os::leave_direct_calls(before_serving);
  --runtime_depth;
}

}  // namespace

Result<std::unique_ptr<farmem::FaultSignal>> start_fault_signal(farmem::Pager& pager) {
  return farmem::FaultSignal::start(pager, {enter_serving, leave_serving});
}

Result<void> start_far_calls() { return os::start_catching(on_call); }

void keep_stack_of_new_thread(const void* lowest, std::size_t bytes) {
  // Its thread vector and first frames lie at its upper end.
  constexpr std::uint64_t kBytes = 64u << 10;
  const std::uint64_t end = number_of(lowest) + bytes;
  const AddressRange range = far_pages(end - std::min<std::uint64_t>(bytes, kBytes),
                                       std::min<std::uint64_t>(bytes, kBytes));
  if (range.bytes == 0) return;
  on_local_stack([range] {
    static_cast<void>(far_runtime.pager->pin(range, UffdAccess::kWrite));
  });
}

}  // namespace isthmus::preload
