// ContextLock: the one lock of a context.
//
// A poll takes and releases it a few million times a second, nearly always alone, so both are one
// atomic operation. A thread that polls without pause would starve one that sleeps for the lock
// (being woken takes 30 µs, the poller is back within 1): pollers call lock_politely(), which
// leaves waiters a chance first.
//
// Threading: any thread. Not for threads that already hold it.
#pragma once

#include <atomic>
#include <cstdint>

namespace isthmus::verbs {

class ContextLock {
 public:
  ContextLock() = default;
  ContextLock(const ContextLock&) = delete;
  ContextLock& operator=(const ContextLock&) = delete;

  void lock() {
    if (!try_lock()) lock_slowly();
  }

  void lock_politely() {
    // Relaxed: a hint; a waiter missed now is seen by the next poll.
    if (waiters_.load(std::memory_order_relaxed) != 0) [[unlikely]] let_waiters_in();
    lock();
  }

  bool try_lock() {
    std::uint32_t expected = kFree;
    // Acquire: partner is the release in unlock().
    return state_.compare_exchange_strong(expected, kHeld, std::memory_order_acquire,
                                          std::memory_order_relaxed);
  }

  // In a forked child, where the threads that held it or waited for it are not.
  void reset() {
    state_ = kFree;
    waiters_ = 0;
  }

  void unlock() {
    // Release: partner is the acquire of whoever locks next.
    if (state_.exchange(kFree, std::memory_order_release) == kHeldAndWanted) [[unlikely]] {
      state_.notify_one();
    }
  }

 private:
  static constexpr std::uint32_t kFree = 0;
  static constexpr std::uint32_t kHeld = 1;
  static constexpr std::uint32_t kHeldAndWanted = 2;  // Somebody sleeps for it.

  void lock_slowly();
  void let_waiters_in();

  std::atomic<std::uint32_t> state_{kFree};
  std::atomic<std::uint32_t> waiters_{0};
};

}  // namespace isthmus::verbs
