// Function: one virtual function in use, as the daemon knows it.
//
// Threading: shard-confined.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "attach/attach_protocol.h"
#include "control/event_loop.h"
#include "control/place.h"
#include "os/fd.h"
#include "os/shared_memory.h"
#include "os/unix_socket.h"
#include "rdma/window.h"
#include "wire/ip.h"

namespace isthmus::control {

// A connection that was let through.
struct Admission {
  std::uint32_t qpn = 0;
  std::uint32_t dest_qpn = 0;
  wire::IpAddress local;
  wire::IpAddress remote;
  std::uint32_t transport = 0;  // ibv_qp_type
  std::uint32_t peer_access = 0;
};

struct Function {
  std::uint32_t index = 0;
  std::uint64_t generation = 0;  // Random, not 0.
  Place* place = nullptr;
  os::PeerCredentials owner{};
  std::int32_t own_process_id = 0;  // As the process sees itself.
  std::string label;
  std::string program;
  attach::ChannelWish channel = attach::ChannelWish::kAuto;
  std::uint64_t probe_address = 0;
  std::uint64_t probe_value = 0;

  os::Fd requests;  // The connection.
  os::Fd events;    // Our end.
  os::Fd process;   // Readable when the process has ended; not valid where it cannot be watched.
  os::Fd window_file;
  os::Fd doorbell;
  std::unique_ptr<os::Mapping> window_mapping;

  std::map<std::uint32_t, Admission> admissions;  // By qpn.
  std::set<std::uint32_t> neighbours;  // Functions that have our doorbell or whose we have.
  // Events that wait for their acknowledgement, by number.
  std::map<std::uint64_t, EventLoop::TimerId> unacknowledged;
  bool steered_away = false;  // It did not acknowledge; see FunctionService.

  // SAFETY: the mapping has the size of a Window, of which every byte pattern is one.
  rdma::Window& window() const { return *reinterpret_cast<rdma::Window*>(window_mapping->data()); }
};

}  // namespace isthmus::control
