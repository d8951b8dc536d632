// Socket: what an rsocket descriptor names. A stream or a datagram socket.
//
// Threading: any thread, several at a time, as with sockets of the kernel. An implementation holds
// its lock only while it works, never while it waits.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "attach/cm_protocol.h"
#include "base/result.h"
#include "rdmacm/socket_options.h"

namespace isthmus::rdmacm {

using attach::CmAddress;

// Set once, in the error of calls that MSG_DONTWAIT or O_NONBLOCK cut short.
inline constexpr ErrorCode kWouldBlock = ErrorCode::kAgain;

class Socket {
 public:
  Socket(int domain, int type) : domain_(domain), type_(type) {}
  virtual ~Socket() = default;
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  // The descriptor that programs know it by; open as long as the socket.
  virtual int number() const = 0;

  virtual Result<void> bind_to(const CmAddress& address) = 0;
  virtual Result<void> start_listening(int backlog) = 0;
  // The new socket; `peer`: its other end.
  virtual Result<std::shared_ptr<Socket>> take_request(CmAddress& peer) = 0;
  virtual Result<void> connect_to(const CmAddress& address) = 0;
  virtual Result<void> shut_down(int how) = 0;  // SHUT_*
  // The program gives the socket up. Later calls fail.
  virtual void give_up() = 0;

  // `flags`: MSG_DONTWAIT, MSG_WAITALL, MSG_PEEK. `from` (may be null): the sender.
  virtual Result<std::size_t> receive(std::span<const iovec> into, int flags,
                                      CmAddress* from) = 0;
  virtual Result<std::size_t> send(std::span<const iovec> data, int flags,
                                   const CmAddress* to) = 0;

  virtual Result<CmAddress> local_address() = 0;
  virtual Result<CmAddress> peer_address() = 0;

  virtual Result<std::int64_t> map_memory(std::span<std::byte>, int, std::int64_t) {
    return unsupported();
  }
  virtual Result<void> unmap_memory(std::span<std::byte>) { return unsupported(); }
  virtual Result<std::size_t> write_mapped(std::span<const std::byte>, std::uint64_t, int) {
    return unsupported();
  }

  // For rpoll: what is true now of `events`, and POLLERR and POLLHUP.
  virtual short ready_events(short events) = 0;
  // For rpoll, before it sleeps: the descriptors whose readability may change that. After it,
  // ready_events is asked once more.
  virtual void arm(std::vector<int>& descriptors) = 0;

  virtual Result<void> set_option(int level, int name, std::span<const std::byte> value) = 0;
  virtual Result<socklen_t> get_option(int level, int name, std::span<std::byte> value) = 0;

  int domain() const { return domain_; }
  int type() const { return type_; }
  // F_GETFL and F_GETFD, as set.
  std::atomic<int> status_flags{0};
  std::atomic<int> descriptor_flags{0};

 protected:
  static std::unexpected<Error> unsupported() {
    return fail(ErrorCode::kUnsupported, "not for sockets of this kind");
  }
  bool must_not_wait(int flags) const;

 private:
  const int domain_;
  const int type_;
};

// Threads in rpoll sleep on descriptors; when another thread takes the news off those, it calls
// this and they look again.
class PollWaiters {
 public:
  static PollWaiters& instance();
  // From here to leave() the calling thread's bell is rung by notify(). Returns its descriptor, or
  // -1 without one.
  int enter();
  void leave();
  void notify();
};

}  // namespace isthmus::rdmacm
