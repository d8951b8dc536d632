#include "rdmacm/channel.h"

#include <algorithm>
#include <array>
#include <utility>

#include "base/log.h"
#include "os/clock.h"
#include "os/event_fd.h"
#include "os/poll.h"
#include "os/timer_fd.h"
#include "os/unix_socket.h"

namespace isthmus::rdmacm {
namespace {

constexpr std::uint64_t kSocketTag = 1;
constexpr std::uint64_t kBellTag = 2;
constexpr std::uint64_t kTimerTag = 3;

constexpr std::uint64_t kFirstPauseNs = 100 * os::kNsPerMs;
constexpr std::uint64_t kLongestPauseNs = os::kNsPerSecond;

}  // namespace

Channel::Channel(std::unique_ptr<os::Epoll> epoll)
    : rdma_event_channel{.fd = epoll->fd()}, epoll_(std::move(epoll)) {}

Result<std::unique_ptr<Channel>> Channel::create() {
  return std::unique_ptr<Channel>(new Channel(ISTHMUS_TRY(os::Epoll::create())));
}

Result<os::Fd> Channel::renew_socket() {
  auto [ours, theirs] = ISTHMUS_TRY(os::unix_socket_pair());
  std::lock_guard lock(mutex_);
  if (socket_) epoll_->remove(socket_.get());
  ISTHMUS_TRY_VOID(epoll_->add(ours.get(), kSocketTag));
  socket_ = std::move(ours);
  pause_ns_ = 0;
  if (timer_) os::set_timer(timer_, 0);
  return std::move(theirs);
}

Result<QueuedEvent> Channel::read_socket() {
  if (!socket_) return fail(ErrorCode::kAgain, "no daemon behind this channel now");
  std::array<std::byte, attach::kCmMaxMessageBytes> buffer;
  for (;;) {
    const auto message = os::receive_message(socket_, buffer);
    if (!message && message.error().code == ErrorCode::kInvalid) continue;  // That one is lost.
    if (!message) return std::unexpected(message.error());
    const auto event = attach::decode_cm_event(std::span{buffer}.first(message->bytes));
    if (event) return QueuedEvent{.wire = *event, .type = static_cast<int>(event->type)};
    ISTHMUS_LOG(kError, "dropped an event of the daemon: %s", event.error().message.c_str());
  }
}

Result<QueuedEvent> Channel::take(const std::function<void(const QueuedEvent&)>& intake) {
  std::lock_guard lock(mutex_);
  if (local_.empty()) {
    auto event = read_socket();
    if (event) intake(*event);
    if (!event && event.error().code != ErrorCode::kAgain) {
      epoll_->remove(socket_.get());
      socket_.reset();
      return fail(ErrorCode::kClosed, "the daemon behind this channel is gone");
    }
    return event;
  }
  QueuedEvent event = local_.front();
  local_.pop_front();
  if (local_.empty()) os::drain(bell_.get());
  intake(event);
  return event;
}

bool Channel::enter() {
  ++users_;
  if (!closed_) return true;
  leave();
  return false;
}

void Channel::leave() {
  if (--users_ == 0) users_.notify_all();
}

void Channel::close() {
  closed_ = true;
  {
    std::lock_guard lock(mutex_);
    ring();
  }
  for (std::uint32_t users = users_; users != 0; users = users_) users_.wait(users);
  socket_.reset();
  timer_.reset();
  epoll_.reset();
}

void Channel::wait(std::uint64_t timeout_ns) {
  os::wait_readable(std::span{&fd, 1}, timeout_ns);
}

bool Channel::non_blocking() const { return !os::is_blocking(fd); }

void Channel::ring() {
  if (!bell_) {
    auto bell = os::create_event_fd();
    if (!bell || !epoll_->add(bell->get(), kBellTag)) {
      ISTHMUS_LOG(kError, "no descriptor left for an event channel; its events may come late");
      return;
    }
    bell_ = std::move(*bell);
  }
  os::signal(bell_.get());
}

void Channel::put(QueuedEvent event) {
  std::lock_guard lock(mutex_);
  // Everything in the socket is older than this one.
  for (auto earlier = read_socket(); earlier; earlier = read_socket()) local_.push_back(*earlier);
  local_.push_back(event);
  ring();
}

void Channel::put_back(const std::deque<QueuedEvent>& events) {
  if (events.empty()) return;
  std::lock_guard lock(mutex_);
  local_.insert(local_.end(), events.begin(), events.end());
  ring();
}

bool Channel::has_socket() {
  std::lock_guard lock(mutex_);
  return socket_.valid();
}

void Channel::look_again_later() {
  std::lock_guard lock(mutex_);
  if (!timer_) {
    auto timer = os::create_timer_fd();
    if (!timer || !epoll_->add(timer->get(), kTimerTag)) {
      ISTHMUS_LOG(kError, "no descriptor left to look for the next daemon with");
      return;
    }
    timer_ = std::move(*timer);
  }
  pause_ns_ = std::clamp(2 * pause_ns_, kFirstPauseNs, kLongestPauseNs);
  os::set_timer(timer_, pause_ns_);
}

bool Channel::is_time_to_look() {
  std::lock_guard lock(mutex_);
  if (!timer_) return false;
  const int timer = timer_.get();
  const bool over = os::wait_readable({&timer, 1}, 0) != 0;
  if (over) os::drain(timer);
  return over;
}

std::deque<QueuedEvent> Channel::extract(const std::function<bool(const QueuedEvent&)>& matches) {
  std::lock_guard lock(mutex_);
  std::deque<QueuedEvent> all = std::exchange(local_, {});
  for (auto event = read_socket(); event; event = read_socket()) all.push_back(*event);
  std::deque<QueuedEvent> taken;
  for (const QueuedEvent& event : all) (matches(event) ? taken : local_).push_back(event);
  if (!local_.empty()) ring();
  if (local_.empty() && bell_) os::drain(bell_.get());
  return taken;
}

}  // namespace isthmus::rdmacm
