// FarRuntime: what the functions in front of libc's share in a program whose memory is far.
//
// Primer: what the program allocates and maps goes to one region, the far region, which the pager
// serves. What the runtime itself needs, pager, store, verbs library, goes to libc's own heap and
// to plain mappings: a fault is served with nothing that can fault. Three rules keep them apart:
//
//   * a thread of the runtime, and any thread while it is in a RuntimeScope, allocates locally;
//   * so do ld.so, our libraries, and libc for small things: thread vectors, streams and their
//     buffers are touched where no fault can be served, such as in a child just forked;
//   * what is given back goes by its address to where it came from.
//
// Threading: any thread. The pointers are set before `bytes` is, and stay.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "farmem/fault_messages.h"
#include "farmem/pager.h"
#include "os/address_range.h"
#include "farmem/far_ranges.h"
#include "preload/page_marks.h"

namespace isthmus::preload {

struct FarRuntime {
  std::uint64_t start = 0;
  std::atomic<std::uint64_t> bytes{0};  // Of the region; 0: nothing is far yet.
  farmem::Pager* pager = nullptr;
  farmem::FaultMessages* messages = nullptr;  // Another in a child of fork(). None: by signal.

  // For maps only. It is not held while the pager is called, except by fork.
  std::mutex lock;
  farmem::FarRanges* ranges = nullptr;
  PageMarks* odd = nullptr;     // Not plainly readable and writable.
  PageMarks* kept = nullptr;    // Pinned because they cannot be read.
  PageMarks* locked = nullptr;  // Pinned by mlock.
};

extern constinit FarRuntime far_runtime;

// How deep this thread is inside the runtime; more than 0: what it allocates is the runtime's.
extern thread_local constinit int runtime_depth;

class RuntimeScope {
 public:
  RuntimeScope() { ++runtime_depth; }
  ~RuntimeScope() { --runtime_depth; }
  RuntimeScope(const RuntimeScope&) = delete;
  RuntimeScope& operator=(const RuntimeScope&) = delete;
};

inline bool is_far(const void* address) {
  // Acquire: of the store in far_start.cc, after which all else is set.
  const std::uint64_t bytes = far_runtime.bytes.load(std::memory_order_acquire);
  return reinterpret_cast<std::uint64_t>(address) - far_runtime.start < bytes;
}

// Whether what this thread asks for now may be far at all.
inline bool is_far_memory_on() {
  // Relaxed: whoever reads more reads `bytes` again, in is_far().
  return far_runtime.bytes.load(std::memory_order_relaxed) != 0 && runtime_depth == 0;
}

// Runs `work` where its stack is not far: in this thread, if that is so, else in one of its own.
// Whatever takes the pager's lock must not fault.
void run_on_local_stack(void (*work)(void*), void* argument);

template <class Work>
void on_local_stack(Work&& work) {
  run_on_local_stack([](void* argument) { (*static_cast<Work*>(argument))(); }, &work);
}

// Of far_threads.cc: the next pthread_create; a thread that it starts belongs to the runtime.
int start_runtime_thread(pthread_t* thread, void* (*work)(void*), void* argument);

}  // namespace isthmus::preload
