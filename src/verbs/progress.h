// Progress: who moves a context's engine along, at every moment.
//
// Primer: the engine moves only when somebody calls it. Handing a message from one thread to
// another costs 25 to 45 µs, ten times the message, so whoever waits for a result does the work:
//
//     the program polls           ibv_poll_cq moves the engine. The helper only looks, once in
//     (kWatching)                 kTickNs, whether the program still does.
//     a thread blocks in          It moves the engine itself and sleeps on the port, the doorbell
//     ibv_get_cq_event            and its channel at once: a message costs one wake-up. The helper
//                                 stays out, in kWatching and, when all is quiet, in kResting.
//     nobody                      The helper moves the engine and sleeps on port and doorbell
//     (kServing)                  until the next deadline.
//
// A program that polls again after a pause takes the work back with its polls_to_take_back_-th
// poll: programs that wait for events poll a few times for each, and should find the helper in
// place when they wait again. Waiting for the channel's descriptor outside (epoll) cannot be seen,
// so a notification armed on a channel that no thread blocks on puts the helper in place at once.
//
// A program can also poll for its own completions and then spin on memory that a peer writes: then
// packets wait although it polls. When the helper meets that at a tick, it takes over and gives
// back only after many more polls in a row that found nothing for it to do.
//
// Invariants: while somebody sleeps on the doorbell, the engine's window says so; somebody always
// serves, or will notice within a tick that nobody does; a sleeper never sleeps past the engine's
// next deadline.
//
// Threading: "Locked:" functions need the context's lock, as every change of the state here does.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "base/result.h"
#include "os/clock.h"
#include "os/epoll.h"
#include "os/event_fd.h"
#include "rdma/engine.h"
#include "verbs/context_lock.h"

namespace isthmus::verbs {

struct ProgressOptions {
  int port_fd = -1;      // Readable: packets have arrived.
  int doorbell_fd = -1;  // An event counter that neighbours ring.
  int daemon_fd = -1;    // Readable: the daemon has something to say.
  std::function<void()> serve_daemon;  // Called without the lock, by the helper.
};

class Progress {
 public:
  // The engine outlives it. Starts the helper thread.
  static Result<std::unique_ptr<Progress>> create(ContextLock& lock, rdma::Engine& engine,
                                                  ProgressOptions options);
  // Stops the helper.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // In a child after fork(), where no helper came along: forgets it.
  void abandon();

  // Locked: the program polls; the caller moves the engine.
  void note_poll() {
    ++polls_;
    if (mode_ != Mode::kWatching) [[unlikely]] on_poll_while_served();
  }

  // Locked: after work that may have moved a deadline forward.
  void note_work() {
    if (asleep_ != 0) [[unlikely]] wake_for_deadline();
  }

  // Locked: the program armed a notification and nobody blocks in ibv_get_cq_event for it.
  void note_armed();

  // Locked, by `guard`, which is released while sleeping: moves the engine until ready() is true.
  // `own_fd` becomes readable when another thread made it so; `awake` counts the callers that
  // would notice by themselves.
  template <class Ready>
  void wait_until(std::unique_lock<ContextLock>& guard, int own_fd, std::uint32_t& awake,
                  Ready ready) {
    enter_wait();
    ++awake;
    for (std::uint32_t round = 1; !ready(); ++round) {
      if (round % kRoundsPerHold == 0) let_others_in(guard);
      if (engine_.progress() || ready()) continue;
      --awake;
      sleep_once(guard, own_fd);
      ++awake;
    }
    --awake;
    leave_wait();
  }

  // For tests.
  enum class Mode : std::uint8_t { kWatching, kServing, kResting };
  Mode mode() const { return mode_; }

  static constexpr std::uint64_t kTickNs = 2 * os::kNsPerMs;
  static constexpr std::uint32_t kPollsToTakeBack = 16;  // To begin with, and at least.
  static constexpr std::uint32_t kMostPollsToTakeBack = 1 << 16;  // About 15 ms of polling.
  static constexpr std::uint64_t kGlanceNs = 50'000;  // A polling program polls in this time.
  // 16 ms without an event: then the helper stops looking whether the blocked thread still is.
  static constexpr std::uint32_t kQuietTicksToRest = 8;
  // Of one hold of the lock, so that posting threads get their turn.
  static constexpr std::uint32_t kRoundsPerHold = 16;
  // A helper that never sleeps looks at the daemon and at kicks this often.
  static constexpr std::uint32_t kHoldsPerLookAround = 64;
  static constexpr std::uint64_t kSpinNs = 50'000;

 private:
  Progress(ContextLock& lock, rdma::Engine& engine, ProgressOptions options);
  Result<void> start();

  void on_poll_while_served();
  void wake_for_deadline();
  void take_back();
  void kick();
  void enter_wait();
  void leave_wait();
  void sleep_once(std::unique_lock<ContextLock>& guard, int own_fd);
  void let_others_in(std::unique_lock<ContextLock>& guard);
  bool begin_sleep();
  void end_sleep();
  void answer_doorbell();

  void run_helper();
  void watch(std::unique_lock<ContextLock>& guard);
  void take_over();
  bool work_waits();
  bool is_neglected(std::unique_lock<ContextLock>& guard);
  void serve(std::unique_lock<ContextLock>& guard);
  bool keeps_spinning();
  void rest(std::unique_lock<ContextLock>& guard);
  void wait_helper(std::unique_lock<ContextLock>& guard, os::Epoll& set, std::uint64_t timeout_ns);

  ContextLock& lock_;
  rdma::Engine& engine_;
  ProgressOptions options_;
  os::Fd kick_fd_;                     // Wakes the helper.
  std::unique_ptr<os::Epoll> quiet_;   // Kicks and the daemon.
  std::unique_ptr<os::Epoll> all_;     // And the port and the doorbell.
  unsigned long helper_ = 0;           // pthread_t; 0: none.

  // Locked:
  Mode mode_ = Mode::kWatching;
  bool stopping_ = false;
  std::uint64_t polls_ = 0;
  std::uint32_t polls_while_served_ = 0;
  std::uint32_t polls_to_take_back_ = kPollsToTakeBack;
  std::uint32_t waiters_ = 0;          // Threads in wait_until().
  std::uint32_t asleep_ = 0;           // Of them and the helper: sleeping on port and doorbell.
  std::uint64_t sleep_deadline_ns_ = UINT64_MAX;
  std::uint64_t waits_ = 0;            // Times a waiter slept.
  std::uint32_t quiet_ticks_ = 0;
  // Of the helper while it serves.
  bool spins_ = false;
  std::uint64_t idle_since_ns_ = 0;
  std::uint32_t holds_ = 0;
};

}  // namespace isthmus::verbs
