#include "preload/interpose/far_fork.h"

#include <pthread.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <new>
#include <optional>
#include <vector>

#include "preload/interpose/far_descriptors.h"
#include "preload/interpose/far_runtime.h"
#include "preload/interpose/far_watch.h"
#include "os/clock.h"
#include "os/last_words.h"
#include "os/low_descriptors.h"
#include "os/poll.h"
#include "os/signal_block.h"
#include "os/syscall_dispatch.h"

// libc's own, taken by its fork() after all handlers have run. Whoever holds it may wait for a far
// page (a buffer given to setvbuf, flushed), so that it has to be taken before the pager stops.
extern "C" void _IO_list_lock();
extern "C" void _IO_list_unlock();

namespace isthmus::preload {
namespace {

using os::AddressRange;
using os::kPageBytes;

// What fork() and its handlers use of a stack that is far: it must stay here while the pager
// stands still.
constexpr std::uint64_t kStackBytes = 64u << 10;

// Of the thread that forks, between the handlers.
struct Forking {
  alignas(os::SignalBlock) std::byte block[sizeof(os::SignalBlock)];
  alignas(os::DirectCalls) std::byte direct[sizeof(os::DirectCalls)];
  AddressRange stack;  // Empty: not far.
};
thread_local constinit Forking forking{};

// Added while far memory is started, by one thread.
constexpr std::size_t kMostHandlers = 16;
constinit std::array<ForkHandlers, kMostHandlers> handlers_of_libraries{};
constinit std::size_t handler_count = 0;

void run_handlers(void (*ForkHandlers::*step)()) {
  for (std::size_t index = 0; index < handler_count; ++index) {
    if (auto* handler = handlers_of_libraries[index].*step) handler();
  }
}

void prepare_libraries() {
  for (std::size_t index = handler_count; index-- > 0;) {
    if (auto* handler = handlers_of_libraries[index].prepare) handler();
  }
}

// A child that needs nothing from the store, and soon calls exec() or ends, never joins.
void* join_in_time(void*) {
  const std::uint64_t deadline_ns = far_runtime.pager->join_by_ns();
  for (std::uint64_t now = os::now_ns(); now < deadline_ns; now = os::now_ns()) {
    os::wait_readable({}, deadline_ns - now);
  }
  far_runtime.pager->join_store();
  return nullptr;
}

void start_to_join() {
  if (far_runtime.pager->join_by_ns() == farmem::Store::kNoHurry) return;
  pthread_t thread;
  if (start_runtime_thread(&thread, join_in_time, nullptr) != 0) {
    return far_runtime.pager->join_store();
  }
  pthread_detach(thread);
}

AddressRange keep_stack(const void* frame) {
  if (!is_far(frame)) return {};
  const std::uint64_t top = reinterpret_cast<std::uint64_t>(frame) / kPageBytes * kPageBytes +
                            2 * kPageBytes;
  const std::uint64_t start = std::max(far_runtime.start, top - kStackBytes);
  const std::uint64_t end = std::min(far_runtime.start + far_runtime.bytes.load(), top);
  const AddressRange stack{start, end - start};
  bool kept = false;
  on_local_stack([stack, &kept] {
    kept = far_runtime.pager->pin(stack, os::UffdAccess::kWrite).has_value();
  });
  return kept ? stack : AddressRange{};
}

void end() {
  far_runtime.lock.unlock();
  const AddressRange stack = forking.stack;
  if (stack.bytes > 0) {
    on_local_stack([stack] { far_runtime.pager->unpin(stack); });
  }
  std::launder(reinterpret_cast<os::DirectCalls*>(forking.direct))->~DirectCalls();
  std::launder(reinterpret_cast<os::SignalBlock*>(forking.block))->~SignalBlock();
  --runtime_depth;
}

// By exit(). Whoever is killed leaves its memory to the end of a lease, if it has forked lately.
[[gnu::destructor]] void note_end() {
  if (far_runtime.bytes.load() == 0) return;
  on_local_stack([] { far_runtime.pager->note_end(); });
}

}  // namespace

bool add_fork_handlers(const ForkHandlers& handlers) {
  if (handler_count == kMostHandlers) return false;
  handlers_of_libraries[handler_count++] = handlers;
  return true;
}

void before_fork() {
  if (far_runtime.bytes.load() == 0) return prepare_libraries();
  ++runtime_depth;
  new (forking.block) os::SignalBlock;  // Until end(); a handler may map memory, or fork.
  new (forking.direct) os::DirectCalls;
  forking.stack = keep_stack(__builtin_frame_address(0));
  _IO_list_lock();
  far_runtime.lock.lock();
  if (far_runtime.messages != nullptr) far_runtime.messages->let_go();
  far_runtime.pager->before_fork();
  prepare_libraries();
}

void after_fork_in_parent() {
  run_handlers(&ForkHandlers::parent);
  if (far_runtime.bytes.load() == 0) return;
  far_runtime.pager->after_fork_in_parent();
  _IO_list_unlock();  // In the child, libc has made it new.
  end();
}

void after_fork_in_child() {
  run_handlers(&ForkHandlers::child);
  if (far_runtime.bytes.load() == 0) return;
  std::optional<os::LowDescriptors> low{std::in_place};
  const std::vector<int> before = os::open_descriptors();
  const auto served = far_runtime.pager->after_fork_in_child();
  if (!served) os::end_process(served.error().message.c_str());
  forget_watched_threads();
  // The thread of the parent's is not here; what it left stays, since nothing would end it.
  if (far_runtime.messages != nullptr) {
    auto messages = farmem::FaultMessages::start(*far_runtime.pager);
    if (!messages) os::end_process(messages.error().message.c_str());
    far_runtime.messages = messages->release();
  } else {
    os::catch_again_in_child();
  }
  if (const auto started = start_watch(); !started) {
    os::end_process(started.error().message.c_str());
  }
  low.reset();
  protect_descriptors(before);
  start_to_join();
  end();
}

}  // namespace isthmus::preload
