#include "verbs/context_lock.h"

#include <thread>

namespace isthmus::verbs {
namespace {

// A holder that makes progress may be inside a system call of a few microseconds; a pause is
// about 40 ns.
constexpr int kPausesBeforeSleep = 100;
// 50 µs and more: the time a sleeping waiter needs to be woken.
constexpr int kPolitePauses = 1500;
// Where a processor is shared, the waiter may need ours.
constexpr int kPausesBetweenYields = 100;

void pause() { __builtin_ia32_pause(); }

}  // namespace

void ContextLock::lock_slowly() {
  waiters_.fetch_add(1, std::memory_order_relaxed);  // Relaxed: a hint, see lock_politely().
  bool locked = false;
  for (int i = 0; i < kPausesBeforeSleep && !locked; ++i) {
    pause();
    locked = state_.load(std::memory_order_relaxed) == kFree && try_lock();
  }
  while (!locked) {
    // Acquire: partner is the release in unlock(). Whoever slept takes it as wanted, because it
    // cannot know whether others sleep too.
    locked = state_.exchange(kHeldAndWanted, std::memory_order_acquire) == kFree;
    if (!locked) state_.wait(kHeldAndWanted, std::memory_order_relaxed);
  }
  waiters_.fetch_sub(1, std::memory_order_relaxed);
}

void ContextLock::let_waiters_in() {
  for (int i = 0; i < kPolitePauses; ++i) {
    if (waiters_.load(std::memory_order_relaxed) == 0) return;
    pause();
    if (i % kPausesBetweenYields == 0) std::this_thread::yield();
  }
}

}  // namespace isthmus::verbs
