// Goal: one holder at a time, and a thread that polls without pause lets others in.
// Method: two threads count under the lock; a poller and a visitor with a bound on its wait.
#include "verbs/context_lock.h"

#include <gtest/gtest.h>

#include <atomic>
#include <mutex>
#include <thread>

namespace isthmus::verbs {
namespace {

TEST(ContextLock, HasOneHolderAtATime) {
  constexpr int kRounds = 20'000;
  ContextLock lock;
  int count = 0;  // Not atomic: the lock alone protects it.
  const auto work = [&] {
    for (int i = 0; i < kRounds; ++i) {
      const std::scoped_lock guard{lock};
      ++count;
    }
  };
  std::thread other{work};
  work();
  other.join();
  EXPECT_EQ(count, 2 * kRounds);
}

TEST(ContextLock, TryLockFailsWhileItIsHeld) {
  ContextLock lock;
  ASSERT_TRUE(lock.try_lock());
  EXPECT_FALSE(lock.try_lock());
  lock.unlock();
  EXPECT_TRUE(lock.try_lock());
}

TEST(ContextLock, APollerLetsAVisitorIn) {
  constexpr int kVisits = 50;
  ContextLock lock;
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> polls = 0;
  std::thread poller{[&] {
    while (!stop) {
      lock.lock_politely();
      ++polls;
      lock.unlock();
    }
  }};
  while (polls == 0) std::this_thread::yield();
  // Expect: every visit ends. Without politeness this takes as long as the poller likes.
  for (int i = 0; i < kVisits; ++i) {
    const std::scoped_lock guard{lock};
  }
  stop = true;
  poller.join();
}

TEST(ContextLock, IsFreeAfterReset) {
  ContextLock lock;
  lock.lock();
  lock.reset();
  EXPECT_TRUE(lock.try_lock());
}

}  // namespace
}  // namespace isthmus::verbs
