// Keeper: the process that holds the daemon's sockets and windows while there is no daemon.
//
// It ends when the daemon tells it to, or when the daemon is gone and no process that had a
// function is left.
//
// Threading: one loop thread, the whole process.
// Input: only processes of the same user may connect (the socket is the owner's alone).
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "control/event_loop.h"
#include "control/keeper_protocol.h"
#include "os/fd.h"

namespace isthmus::control {

class Keeper {
 public:
  // `daemon` is the connection to the daemon that started it.
  Keeper(EventLoop& loop, os::Fd daemon, std::string socket_path)
      : loop_(loop), daemon_(std::move(daemon)), socket_path_(std::move(socket_path)) {}
  ~Keeper();
  Keeper(const Keeper&) = delete;
  Keeper& operator=(const Keeper&) = delete;

  // Listens, and says so to the daemon. The loop stops when there is nothing to keep any more.
  Result<void> start();

 private:
  struct Kept {
    KeeperRecord record;
    std::vector<os::Fd> fds;
    os::Fd process;  // Of a function: readable when its process has ended.
  };

  void on_connection();
  void on_message();
  void keep(const KeeperRecord& record, std::vector<os::Fd> fds);
  void forget(std::uint32_t function);
  void hand_over();
  void lose_daemon();
  void end_if_useless();

  EventLoop& loop_;
  os::Fd daemon_;  // Not valid: gone.
  const std::string socket_path_;
  os::Fd listener_;
  // In the order of arrival, which is that of the members' numbers.
  std::vector<Kept> places_;
  std::map<std::uint32_t, Kept> functions_;  // By number.
};

}  // namespace isthmus::control
