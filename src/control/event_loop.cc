#include "control/event_loop.h"

#include <array>

#include "base/assert.h"
#include "os/clock.h"
#include "os/event_fd.h"

namespace isthmus::control {
namespace {

constexpr std::uint64_t kBellTag = 0;
constexpr std::size_t kEventsPerTurn = 64;

}  // namespace

Result<std::unique_ptr<EventLoop>> EventLoop::create() {
  std::unique_ptr<os::Epoll> epoll = ISTHMUS_TRY(os::Epoll::create());
  os::Fd bell = ISTHMUS_TRY(os::create_event_fd());
  ISTHMUS_TRY_VOID(epoll->add(bell.get(), kBellTag));
  return std::unique_ptr<EventLoop>(new EventLoop(std::move(epoll), std::move(bell)));
}

EventLoop::~EventLoop() { stop(); }

Result<void> EventLoop::watch(int fd, Callback callback) {
  ISTHMUS_ASSERT(!tag_of_fd_.contains(fd));
  // A number of its own for each watch: an event of this turn for a descriptor that was closed and
  // opened again must not reach the new one.
  const std::uint64_t tag = ++last_tag_;
  ISTHMUS_TRY_VOID(epoll_->add(fd, tag));
  watches_[tag] = Watch{fd, std::make_shared<Callback>(std::move(callback))};
  tag_of_fd_[fd] = tag;
  return {};
}

void EventLoop::unwatch(int fd) {
  const auto found = tag_of_fd_.find(fd);
  if (found == tag_of_fd_.end()) return;
  epoll_->remove(fd);
  watches_.erase(found->second);
  tag_of_fd_.erase(found);
}

EventLoop::TimerId EventLoop::call_at(std::uint64_t deadline_ns, Callback callback) {
  const TimerId timer{++last_timer_};
  timers_.emplace(std::pair{deadline_ns, timer}, std::move(callback));
  deadline_of_[timer] = deadline_ns;
  return timer;
}

void EventLoop::cancel(TimerId timer) {
  const auto found = deadline_of_.find(timer);
  if (found == deadline_of_.end()) return;
  timers_.erase({found->second, timer});
  deadline_of_.erase(found);
}

bool EventLoop::post(Callback callback) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return false;
    posted_.push_back(std::move(callback));
  }
  os::signal(bell_.get());
  return true;
}

void EventLoop::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  os::signal(bell_.get());
}

// How long the loop may then sleep.
std::uint64_t EventLoop::run_due_timers() {
  while (!timers_.empty()) {
    const std::uint64_t now = os::now_ns();
    const auto first = timers_.begin();
    const auto [deadline, timer] = first->first;
    if (deadline > now) return deadline - now;
    const Callback callback = std::move(first->second);
    timers_.erase(first);
    deadline_of_.erase(timer);
    callback();
  }
  return os::kWaitForEver;
}

void EventLoop::run_posted() {
  std::vector<Callback> posted;
  {
    const std::lock_guard lock(mutex_);
    posted.swap(posted_);
  }
  for (const Callback& callback : posted) callback();
}

void EventLoop::run() {
  std::array<os::Readiness, kEventsPerTurn> ready;
  while (true) {
    run_posted();
    // Last before the wait: what ran above may have set a timer. What timers post rings the bell.
    const std::uint64_t patience = run_due_timers();
    {
      const std::lock_guard lock(mutex_);
      if (stopping_ && posted_.empty()) return;
    }
    for (const os::Readiness& event : epoll_->wait(ready, patience)) {
      if (event.tag == kBellTag) {
        os::drain(bell_.get());
        continue;
      }
      const auto found = watches_.find(event.tag);
      if (found == watches_.end()) continue;  // Unwatched earlier in this turn.
      const std::shared_ptr<Callback> callback = found->second.callback;
      (*callback)();
    }
  }
}

}  // namespace isthmus::control
