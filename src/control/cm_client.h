// What the connection manager's service keeps about one process: its connection, its event
// channels, its ids and its multicast memberships.
//
// Threading: shard-confined.
#pragma once

#include <cstdint>
#include <deque>
#include <set>
#include <string>

#include "attach/cm_protocol.h"
#include "cm/manager.h"
#include "control/event_loop.h"
#include "os/fd.h"
#include "os/unix_socket.h"

namespace isthmus::control {

struct CmClient {
  cm::ClientId id = 0;
  os::Fd connection;
  os::PeerCredentials credentials{};
  std::string label;
  std::string program;
  std::set<std::uint32_t> channels;
  std::set<cm::IdHandle> ids;
  // Connects that it may still make at once; see kConnectsPerSecond.
  double connects_left = 0;
  std::uint64_t refilled_ns = 0;
  EventLoop::TimerId paused = EventLoop::TimerId::kNone;  // Not read from until then.
};

// The daemon's end of an rdma_event_channel.
struct CmChannel {
  cm::ClientId client = 0;
  os::Fd socket;
  std::size_t id_count = 0;
  std::deque<attach::CmEvent> waiting;  // The program does not read; in order.
  EventLoop::TimerId retry = EventLoop::TimerId::kNone;
};

struct CmIdRecord {
  cm::ClientId client = 0;
  std::uint32_t channel = 0;
  std::uint64_t cookie = 0;
  std::uint32_t events_delivered = 0;
};

struct CmMembership {
  cm::IdHandle id = 0;
  std::uint64_t cookie = 0;
  std::uint32_t events_delivered = 0;
};

}  // namespace isthmus::control
