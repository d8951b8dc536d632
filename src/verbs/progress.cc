#include "verbs/progress.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <array>
#include <thread>

#include "base/assert.h"
#include "os/poll.h"

namespace isthmus::verbs {
namespace {

enum Tag : std::uint64_t { kKickTag, kDaemonTag, kPortTag, kDoorbellTag };

std::uint64_t time_left(std::uint64_t deadline_ns) {
  if (deadline_ns == UINT64_MAX) return os::kWaitForEver;
  const std::uint64_t now = os::now_ns();
  return deadline_ns > now ? deadline_ns - now : 0;
}

}  // namespace

Progress::Progress(ContextLock& lock, rdma::Engine& engine, ProgressOptions options)
    : lock_(lock), engine_(engine), options_(std::move(options)) {}

Result<std::unique_ptr<Progress>> Progress::create(ContextLock& lock, rdma::Engine& engine,
                                                   ProgressOptions options) {
  std::unique_ptr<Progress> made{new Progress(lock, engine, std::move(options))};
  ISTHMUS_TRY_VOID(made->start());
  return made;
}

Result<void> Progress::start() {
  kick_fd_ = ISTHMUS_TRY(os::create_event_fd());
  quiet_ = ISTHMUS_TRY(os::Epoll::create());
  all_ = ISTHMUS_TRY(os::Epoll::create());
  for (os::Epoll* set : {quiet_.get(), all_.get()}) {
    ISTHMUS_TRY_VOID(set->add(kick_fd_.get(), kKickTag));
    if (options_.daemon_fd >= 0) ISTHMUS_TRY_VOID(set->add(options_.daemon_fd, kDaemonTag));
  }
  if (options_.port_fd >= 0) ISTHMUS_TRY_VOID(all_->add(options_.port_fd, kPortTag));
  if (options_.doorbell_fd >= 0) ISTHMUS_TRY_VOID(all_->add(options_.doorbell_fd, kDoorbellTag));

  // The program's signals are for its own threads.
  sigset_t every;
  sigset_t before;
  sigfillset(&every);
  pthread_sigmask(SIG_SETMASK, &every, &before);
  const auto body = [](void* self) -> void* {
    static_cast<Progress*>(self)->run_helper();
    return nullptr;
  };
  const int failure = pthread_create(&helper_, nullptr, body, this);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  if (failure != 0) {
    helper_ = 0;
    return fail_errno(failure, "start the helper thread of an RDMA device");
  }
  pthread_setname_np(helper_, "isthmus-verbs");
  return {};
}

Progress::~Progress() {
  if (helper_ == 0) return;
  {
    const std::scoped_lock guard{lock_};
    stopping_ = true;
    kick();
  }
  pthread_join(helper_, nullptr);
}

void Progress::abandon() { helper_ = 0; }

void Progress::kick() { os::signal(kick_fd_.get()); }

void Progress::on_poll_while_served() {
  if (mode_ == Mode::kResting || ++polls_while_served_ >= polls_to_take_back_) take_back();
}

void Progress::take_back() {
  if (mode_ == Mode::kWatching) return;
  // Out of its sleep, or it would sleep on while the window no longer says that anybody does.
  mode_ = Mode::kWatching;
  kick();
}

void Progress::note_armed() {
  if (mode_ != Mode::kWatching || waiters_ != 0) return;
  mode_ = Mode::kServing;
  polls_while_served_ = 0;
  kick();
}

void Progress::wake_for_deadline() {
  // All sleepers look at the doorbell, so our own ring wakes them to choose a new deadline.
  if (engine_.next_deadline_ns() < sleep_deadline_ns_) os::signal(options_.doorbell_fd);
}

void Progress::enter_wait() {
  if (mode_ == Mode::kServing) take_back();
  ++waiters_;
}

void Progress::leave_wait() {
  --waiters_;
  // What is left to do is for those who sleep on.
  if (asleep_ != 0 && !engine_.prepare_to_sleep()) os::signal(options_.doorbell_fd);
  if (mode_ == Mode::kResting) take_back();
}

// False: there is work, do not sleep.
bool Progress::begin_sleep() {
  if (!engine_.prepare_to_sleep()) {
    if (asleep_ == 0) engine_.end_sleep();
    return false;
  }
  ++asleep_;
  sleep_deadline_ns_ = engine_.next_deadline_ns();
  return true;
}

void Progress::end_sleep() {
  ISTHMUS_ASSERT(asleep_ > 0);
  // Others may sleep on: then neighbours have to go on ringing.
  if (--asleep_ == 0) engine_.end_sleep();
}

void Progress::sleep_once(std::unique_lock<ContextLock>& guard, int own_fd) {
  if (!begin_sleep()) return;
  ++waits_;
  const std::uint64_t deadline_ns = sleep_deadline_ns_;
  guard.unlock();
  const std::array fds{options_.doorbell_fd, options_.port_fd, own_fd};
  const std::uint32_t readable = os::wait_readable(fds, time_left(deadline_ns));
  guard.lock();
  end_sleep();
  if ((readable & 1) != 0) answer_doorbell();
}

// Whoever silences the doorbell does the work it rang for: others who sleep on it may not have
// woken, and will not after that.
void Progress::answer_doorbell() {
  os::drain(options_.doorbell_fd);
  engine_.progress();
}

void Progress::run_helper() {
  std::unique_lock guard{lock_};
  while (!stopping_) {
    switch (mode_) {
      case Mode::kWatching: watch(guard); break;
      case Mode::kServing: serve(guard); break;
      case Mode::kResting: rest(guard); break;
    }
  }
}

void Progress::take_over() {
  mode_ = Mode::kServing;
  polls_while_served_ = 0;
}

bool Progress::work_waits() {
  const bool activity = !engine_.prepare_to_sleep();
  if (asleep_ == 0) engine_.end_sleep();
  return activity || os::wait_readable(std::array{options_.port_fd}, 0) != 0;
}

// Whether something waits that no polling thread takes.
bool Progress::is_neglected(std::unique_lock<ContextLock>& guard) {
  if (waiters_ != 0 || !work_waits()) return false;
  const std::uint64_t polls_before = polls_;
  wait_helper(guard, *quiet_, kGlanceNs);
  return mode_ == Mode::kWatching && waiters_ == 0 && polls_ == polls_before && work_waits();
}

void Progress::watch(std::unique_lock<ContextLock>& guard) {
  const std::uint64_t polls_before = polls_;
  const std::uint64_t waits_before = waits_;
  wait_helper(guard, *quiet_, kTickNs);
  if (mode_ != Mode::kWatching) return;

  if (polls_ != polls_before || waits_ != waits_before) {
    quiet_ticks_ = 0;
    if (is_neglected(guard)) {
      polls_to_take_back_ = std::min(4 * polls_to_take_back_, kMostPollsToTakeBack);
      take_over();
    } else {
      polls_to_take_back_ =
          std::max(kPollsToTakeBack, polls_to_take_back_ - polls_to_take_back_ / 64);
    }
  } else if (waiters_ == 0) {
    take_over();
  } else if (++quiet_ticks_ >= kQuietTicksToRest) {
    quiet_ticks_ = 0;
    mode_ = Mode::kResting;
  }
}

void Progress::rest(std::unique_lock<ContextLock>& guard) {
  wait_helper(guard, *quiet_, os::kWaitForEver);
}

void Progress::serve(std::unique_lock<ContextLock>& guard) {
  for (std::uint32_t round = 0; round < kRoundsPerHold; ++round) {
    if (engine_.progress()) {
      polls_while_served_ = 0;
      idle_since_ns_ = 0;
    } else if (!keeps_spinning()) {
      if (!begin_sleep()) continue;
      const std::uint64_t before = os::now_ns();
      wait_helper(guard, *all_, time_left(sleep_deadline_ns_));
      end_sleep();
      spins_ = os::now_ns() - before < kSpinNs;
      polls_while_served_ = 0;
      return;
    } else {
      break;
    }
  }
  if (++holds_ % kHoldsPerLookAround == 0) wait_helper(guard, *quiet_, 0);
  let_others_in(guard);
}

// Being woken takes longer than most gaps in a stream of messages. So when the last sleep was
// short, the next one waits until nothing has come for as long as waking takes.
bool Progress::keeps_spinning() {
  if (!spins_) return false;
  const std::uint64_t now = os::now_ns();
  if (idle_since_ns_ == 0) idle_since_ns_ = now;
  if (now - idle_since_ns_ < kSpinNs) return true;
  idle_since_ns_ = 0;
  spins_ = false;
  return false;
}

void Progress::let_others_in(std::unique_lock<ContextLock>& guard) {
  guard.unlock();
  std::this_thread::yield();  // The program may share our processor.
  lock_.lock_politely();
  guard = std::unique_lock{lock_, std::adopt_lock};
}

void Progress::wait_helper(std::unique_lock<ContextLock>& guard, os::Epoll& set,
                           std::uint64_t timeout_ns) {
  guard.unlock();
  bool rang = false;
  std::array<os::Readiness, 4> ready;
  for (const os::Readiness& one : set.wait(ready, timeout_ns)) {
    switch (one.tag) {
      case kKickTag: os::drain(kick_fd_.get()); break;
      case kDoorbellTag: rang = true; break;
      case kDaemonTag: options_.serve_daemon(); break;
      default: break;
    }
  }
  guard.lock();
  // Taken back meanwhile: it goes on ringing for whoever sleeps in the helper's place.
  if (rang && mode_ == Mode::kServing) answer_doorbell();
}

}  // namespace isthmus::verbs
