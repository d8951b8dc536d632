// What a process tells the daemon about itself, and opening a connection with it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "attach/attach_protocol.h"
#include "base/result.h"
#include "os/fd.h"

namespace isthmus::attach {

// How long a daemon may take to answer a request before it counts as gone.
constexpr std::uint64_t kAnswerPatienceNs = 10'000'000'000;

struct AttachOptions {
  std::string socket_path;
  std::string label;  // Of the instance; empty: the daemon's own.
  ChannelWish channel = ChannelWish::kAuto;
  std::string program;  // Its name; empty: to be asked for.

  // ISTHMUS_SOCKET or the usual place, ISTHMUS_LABEL, ISTHMUS_CHANNEL ("auto" or "roce").
  // In a child of fork(): what its parent found, because the environment, and the program's name
  // too, can be in memory that is far, and this may be needed to reach it.
  static AttachOptions from_environment();

  friend bool operator==(const AttachOptions&, const AttachOptions&) = default;
};

// With label, channel, program and process id filled in.
Hello hello_of(ConnectionKind kind, const AttachOptions& options);

// kNotFound, kRefused: no daemon there; the message says how to start one.
Result<os::Fd> connect_to_daemon(const std::string& socket_path);

// A connection of kind cm, greeted: the messages of cm_protocol.h come next.
Result<os::Fd> open_cm_connection(const AttachOptions& options);

// A connection that keeps a private daemon alive as long as it is open.
Result<os::Fd> open_hold_connection(const AttachOptions& options);

// Waits for one message and puts it into `buffer`. kTimedOut after kAnswerPatienceNs.
struct Answer {
  std::size_t bytes = 0;
  std::vector<os::Fd> fds;
};
Result<Answer> receive_answer(const os::Fd& socket, std::span<std::byte> buffer);

}  // namespace isthmus::attach
