// rpoll and rselect: waiting for rsockets and the kernel's descriptors together.
//
// An rsocket's readiness is computed, not read off one descriptor. So each round asks the sockets;
// when none is ready, arms them, asks once more, and sleeps on all descriptors that could change an
// answer.

#include <algorithm>
#include <memory>
#include <mutex>
#include <vector>

#include "os/clock.h"
#include "os/epoll.h"
#include "os/event_fd.h"
#include "os/poll_set.h"
#include "os/process.h"
#include "rdmacm/abi.h"
#include "rdmacm/outcome.h"
#include "rdmacm/socket.h"
#include "rdmacm/socket_table.h"

namespace isthmus::rdmacm {
namespace {

constexpr std::uint64_t kSpinNs = 10'000;  // As in a socket's own wait.

struct WaiterList {
  std::mutex mutex;
  std::vector<int> bells;
  std::atomic<std::size_t> count{0};
};

// Never destroyed: threads may be in rpoll while the process ends.
WaiterList& waiters() {
  static auto* const list = new WaiterList;
  return *list;
}

// The bell of a thread. A child process must not ring its parent's.
struct Bell {
  os::Fd fd;
  std::int32_t process_id = 0;
};
thread_local Bell bell_of_thread;

}  // namespace

PollWaiters& PollWaiters::instance() {
  static PollWaiters instance;
  return instance;
}

int PollWaiters::enter() {
  Bell& bell = bell_of_thread;
  if (!bell.fd || bell.process_id != os::process_id()) {
    auto made = os::create_event_fd();
    if (!made) return -1;
    bell.fd = std::move(*made);
    bell.process_id = os::process_id();
  }
  WaiterList& list = waiters();
  std::lock_guard lock(list.mutex);
  list.bells.push_back(bell.fd.get());
  list.count = list.bells.size();
  return bell.fd.get();
}

void PollWaiters::leave() {
  if (!bell_of_thread.fd) return;
  WaiterList& list = waiters();
  {
    std::lock_guard lock(list.mutex);
    std::erase(list.bells, bell_of_thread.fd.get());
    list.count = list.bells.size();
  }
  os::drain(bell_of_thread.fd.get());
}

void PollWaiters::notify() {
  WaiterList& list = waiters();
  if (list.count == 0) return;
  const int own = bell_of_thread.fd ? bell_of_thread.fd.get() : -1;
  std::lock_guard lock(list.mutex);
  for (const int bell : list.bells) {
    if (bell != own) os::signal(bell);
  }
}

namespace {

class PollCall {
 public:
  explicit PollCall(std::span<pollfd> items) : items_(items) {
    sockets_.reserve(items.size());
    for (const pollfd& item : items) {
      sockets_.push_back(item.fd >= 0 ? SocketTable::instance().find(item.fd) : nullptr);
      has_sockets_ = has_sockets_ || sockets_.back() != nullptr;
      has_others_ = has_others_ || (sockets_.back() == nullptr && item.fd >= 0);
    }
  }

  Result<int> run(std::uint64_t timeout_ns) {
    if (!has_sockets_) return os::poll_set(items_, timeout_ns);
    const std::uint64_t now = os::now_ns();
    const bool for_ever = timeout_ns == os::kWaitForEver;
    const std::uint64_t give_up_ns = for_ever ? os::kWaitForEver : now + timeout_ns;
    int ready = ISTHMUS_TRY(look_once());
    if (ready != 0 || timeout_ns == 0) return ready;
    const std::uint64_t spin_until_ns = std::min(now + kSpinNs, give_up_ns);
    while (ready == 0 && os::now_ns() < spin_until_ns) ready = look_at_sockets();
    while (ready == 0) {
      const std::uint64_t left = for_ever ? os::kWaitForEver : time_left(give_up_ns);
      if (left == 0) return 0;
      ready = ISTHMUS_TRY(sleep(left));
    }
    return ready;
  }

 private:
  static std::uint64_t time_left(std::uint64_t give_up_ns) {
    const std::uint64_t now = os::now_ns();
    return give_up_ns > now ? give_up_ns - now : 0;
  }

  int look_at_sockets() {
    int ready = 0;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (sockets_[i] == nullptr) continue;
      items_[i].revents = sockets_[i]->ready_events(items_[i].events);
      if (items_[i].revents != 0) ++ready;
    }
    return ready;
  }

  Result<int> look_once() {
    const int ready = look_at_sockets();
    if (!has_others_) return ready;
    build_list();
    list_.resize(items_.size());
    ISTHMUS_TRY(os::poll_set(list_, 0));
    return ready + copy_others();
  }

  // The caller's list with our sockets taken out.
  void build_list() {
    list_.assign(items_.begin(), items_.end());
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (sockets_[i] != nullptr) list_[i].fd = -1;
      list_[i].revents = 0;
    }
  }

  int copy_others() {
    int ready = 0;
    for (std::size_t i = 0; i < items_.size(); ++i) {
      if (sockets_[i] != nullptr) continue;
      items_[i].revents = list_[i].revents;
      if (items_[i].revents != 0) ++ready;
    }
    return ready;
  }

  Result<int> sleep(std::uint64_t left_ns) {
    build_list();
    std::vector<int> descriptors;
    for (const auto& socket : sockets_) {
      if (socket != nullptr) socket->arm(descriptors);
    }
    const int bell = PollWaiters::instance().enter();
    const auto leave = [](void*) { PollWaiters::instance().leave(); };
    const std::unique_ptr<void, decltype(leave)> entered(this, leave);
    if (const int ready = look_at_sockets(); ready != 0) return ready;
    for (const int fd : descriptors) list_.push_back({.fd = fd, .events = POLLIN, .revents = 0});
    list_.push_back({.fd = bell, .events = POLLIN, .revents = 0});
    ISTHMUS_TRY(os::poll_set(list_, left_ns));
    const int others = copy_others();
    return others + look_at_sockets();
  }

  std::span<pollfd> items_;
  std::vector<std::shared_ptr<Socket>> sockets_;
  std::vector<pollfd> list_;
  bool has_sockets_ = false;
  bool has_others_ = false;
};

std::uint64_t timeout_of(const timeval* timeout) {
  if (timeout == nullptr) return os::kWaitForEver;
  constexpr std::uint64_t kNsPerUs = 1000;
  return static_cast<std::uint64_t>(timeout->tv_sec) * os::kNsPerSecond +
         static_cast<std::uint64_t>(timeout->tv_usec) * kNsPerUs;
}

}  // namespace
}  // namespace isthmus::rdmacm

using namespace isthmus::rdmacm;

int rpoll(pollfd* fds, nfds_t count, int timeout_ms) {
  const std::uint64_t timeout_ns =
      timeout_ms < 0 ? isthmus::os::kWaitForEver
                     : static_cast<std::uint64_t>(timeout_ms) * isthmus::os::kNsPerMs;
  const auto ready = PollCall({fds, count}).run(timeout_ns);
  return ready ? *ready : failed(ready.error());
}

int rselect(int count, fd_set* reads, fd_set* writes, fd_set* exceptions, timeval* timeout) {
  std::vector<pollfd> items;
  for (int fd = 0; fd < count; ++fd) {
    const bool read = reads != nullptr && FD_ISSET(fd, reads);
    const bool write = writes != nullptr && FD_ISSET(fd, writes);
    const bool other = exceptions != nullptr && FD_ISSET(fd, exceptions);
    if (!read && !write && !other) continue;
    const int events = (read ? POLLIN : 0) | (write ? POLLOUT : 0) | (other ? POLLPRI : 0);
    items.push_back({.fd = fd, .events = static_cast<short>(events), .revents = 0});
  }
  const auto ready = PollCall(items).run(timeout_of(timeout));
  if (!ready) return failed(ready.error());

  if (reads != nullptr) FD_ZERO(reads);
  if (writes != nullptr) FD_ZERO(writes);
  if (exceptions != nullptr) FD_ZERO(exceptions);
  int bits = 0;
  const auto mark = [&](const pollfd& item, fd_set* set, short asked, int answers) {
    if (set == nullptr || (item.events & asked) == 0 || (item.revents & answers) == 0) return;
    FD_SET(item.fd, set);
    ++bits;
  };
  for (const pollfd& item : items) {
    mark(item, reads, POLLIN, POLLIN | POLLHUP | POLLERR);
    mark(item, writes, POLLOUT, POLLOUT | POLLERR);
    mark(item, exceptions, POLLPRI, POLLPRI);
  }
  return bits;
}

// An epoll for rsockets needs a thread of its own that polls; programs that want it can use rpoll.
int repoll_create(int) { return failed(ENOSYS); }
int repoll_ctl(int, int, int, epoll_event*) { return failed(ENOSYS); }
int repoll_wait(int, epoll_event*, int, int) { return failed(ENOSYS); }
