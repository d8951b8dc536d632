// AttachServer: listens at the attach socket, takes each connection's greeting and hands it to the
// service of its kind.
//
// Threading: shard-confined to the loop.
// Input: anybody who may open the socket connects; what does not greet within kGreetingPatienceNs,
// or greets with nonsense, is closed. At most kMaxUngreeted wait at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "control/event_loop.h"
#include "control/function_service.h"
#include "os/fd.h"
#include "os/unix_socket.h"

namespace isthmus::control {

constexpr std::uint64_t kGreetingPatienceNs = 5'000'000'000;
constexpr std::size_t kMaxUngreeted = 256;

class AttachServer {
 public:
  // A connection and its greeting. Each takes the connection over and answers it.
  struct Handlers {
    std::function<void(os::Fd, Greeting)> function;
    std::function<void(os::Fd, Greeting)> cm;
    // Called whenever the number of held connections (kind hold) has changed.
    std::function<void()> holders_changed;
  };

  AttachServer(EventLoop& loop, os::Fd listener, Handlers handlers);
  ~AttachServer();
  AttachServer(const AttachServer&) = delete;
  AttachServer& operator=(const AttachServer&) = delete;

  Result<void> start();
  std::size_t holder_count() const { return holders_.size(); }

 private:
  struct Ungreeted {
    os::Fd connection;
    EventLoop::TimerId patience = EventLoop::TimerId::kNone;
  };

  void on_connection();
  void on_greeting(int fd);
  void close_ungreeted(int fd);
  void dispatch(os::Fd connection, Greeting greeting);
  void hold(os::Fd connection);

  EventLoop& loop_;
  os::Fd listener_;
  const Handlers handlers_;
  std::map<int, Ungreeted> ungreeted_;
  std::map<int, os::Fd> holders_;
};

}  // namespace isthmus::control
