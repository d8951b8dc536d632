// EventLoop: the one thread of the daemon that owns its state, and how others reach it.
//
// Callbacks run one at a time and must not block. A callback may watch, unwatch, arm and cancel
// anything, itself included; what it cancelled does not run any more.
//
// Threading: everything on the thread that calls run(), or before it; post() and stop() anywhere.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "os/epoll.h"
#include "os/fd.h"

namespace isthmus::control {

class EventLoop {
 public:
  using Callback = std::function<void()>;
  enum class TimerId : std::uint64_t { kNone = 0 };

  static Result<std::unique_ptr<EventLoop>> create();
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Calls back whenever `fd` is readable or closed, until unwatch(), which has to come before the
  // descriptor is closed.
  Result<void> watch(int fd, Callback callback);
  void unwatch(int fd);

  // Once, at or after this time of os::now_ns().
  TimerId call_at(std::uint64_t deadline_ns, Callback callback);
  void cancel(TimerId timer);

  // Runs it on the loop soon. False: the loop has ended, nobody will.
  bool post(Callback callback);

  void run();
  void stop();

 private:
  struct Watch {
    int fd = -1;
    std::shared_ptr<Callback> callback;
  };

  EventLoop(std::unique_ptr<os::Epoll> epoll, os::Fd bell)
      : epoll_(std::move(epoll)), bell_(std::move(bell)) {}
  std::uint64_t run_due_timers();
  void run_posted();

  std::unique_ptr<os::Epoll> epoll_;
  os::Fd bell_;
  std::unordered_map<std::uint64_t, Watch> watches_;  // By tag; 0 is the bell.
  std::unordered_map<int, std::uint64_t> tag_of_fd_;
  std::uint64_t last_tag_ = 0;
  std::map<std::pair<std::uint64_t, TimerId>, Callback> timers_;  // By deadline, then age.
  std::unordered_map<TimerId, std::uint64_t> deadline_of_;
  std::uint64_t last_timer_ = 0;

  std::mutex mutex_;  // Guards the two below.
  std::vector<Callback> posted_;
  bool stopping_ = false;
};

}  // namespace isthmus::control
