// Channel: what is behind an rdma_event_channel.
//
// Its public fd is an epoll set. In the set is our end of the socketpair whose other end the daemon
// writes events into, and, once needed, a bell for the local queue: events that were read from the
// socket for somebody else, or that the library makes itself. Programs may poll the fd, watch it in
// an epoll set of their own, and make it non-blocking; it stays the same when the daemon behind it
// is replaced.
//
//     daemon --> [ socketpair ] --.
//                                  >-- epoll set = rdma_event_channel::fd
//     library -> [ local queue ] --|
//     clock ---> [ timer ] --------'    while there is no daemon: time to look for the next one
//
// Order: the local queue holds only events older than what is still in the socket, so it is
// emptied first.
//
// Threading: any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "attach/cm_protocol.h"
#include "os/epoll.h"
#include "os/fd.h"
#include "rdmacm/abi.h"

namespace isthmus::rdmacm {

// An event on its way to the program.
struct QueuedEvent {
  attach::CmEvent wire;
  int type = 0;                // rdma_cm_event_type, or one of the library's own (abi.h).
  std::uint64_t argument = 0;  // kEventUser.
};

class Channel : public rdma_event_channel {
 public:
  static Result<std::unique_ptr<Channel>> create();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  static Channel& of(rdma_event_channel* channel) { return *static_cast<Channel*>(channel); }

  // A fresh socketpair: the end for the daemon. Ours replaces the one in use.
  Result<os::Fd> renew_socket();

  // The next event. kAgain: none now. kClosed: the daemon behind the socket is gone; said once.
  // `intake` runs under the channel's lock, so that no other thread handles a later event of the
  // same id before it returns.
  Result<QueuedEvent> take(const std::function<void(const QueuedEvent&)>& intake);

  // Until take() may have something to say; at most `timeout_ns`.
  void wait(std::uint64_t timeout_ns);
  bool non_blocking() const;

  // An event of the library's own, behind those already queued.
  void put(QueuedEvent event);

  // Events of another channel, older than what the socket has for the same ids.
  void put_back(const std::deque<QueuedEvent>& events);

  // False: the daemon behind it is gone and take() has said so.
  bool has_socket();

  // While it has no socket: makes the descriptor readable after a pause, which doubles each time
  // up to kLongestPauseNs, so that whoever waits for an event comes and looks for a daemon.
  void look_again_later();
  // Whether the pause is over; said once.
  bool is_time_to_look();

  // Programs destroy a channel while a thread of theirs sleeps in rdma_get_cm_event on it. That
  // thread comes between enter() and leave(); close() wakes it and waits until it has left. False:
  // the channel is closed.
  bool enter();
  void leave();
  void close();
  bool closed() const { return closed_; }

  // Reads the socket empty into the local queue and takes out the events that `matches` names.
  std::deque<QueuedEvent> extract(const std::function<bool(const QueuedEvent&)>& matches);

  std::uint32_t handle = 0;  // The daemon's; guarded by the session's link lock.

 private:
  explicit Channel(std::unique_ptr<os::Epoll> epoll);

  Result<QueuedEvent> read_socket();
  void ring();

  std::atomic<std::uint32_t> users_ = 0;     // Between enter() and leave().
  std::atomic<bool> closed_ = false;
  std::mutex mutex_;
  std::unique_ptr<os::Epoll> epoll_;
  os::Fd socket_;
  os::Fd timer_;  // Made when it is first needed.
  std::uint64_t pause_ns_ = 0;
  os::Fd bell_;  // An eventfd, made with the first local event; readable while local_ has any.
  std::deque<QueuedEvent> local_;
};

}  // namespace isthmus::rdmacm
