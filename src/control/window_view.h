// What the daemon reads in the window of a function. The owner writes it at any time and may have
// left anything in it, so everything is a copy, and a copy may be a moment old.
#pragma once

#include <cstdint>
#include <vector>

#include "rdma/window.h"
#include "wire/ip.h"

namespace isthmus::control {

struct TrafficView {
  std::uint64_t messages_sent = 0;
  std::uint64_t messages_received = 0;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t packets_sent = 0;
  std::uint64_t packets_received = 0;
  std::uint64_t retries = 0;
  std::uint64_t drops = 0;
};

struct QueuePairView {
  std::uint32_t qpn = 0;
  std::uint32_t state = 0;  // ibv_qp_state
  std::uint32_t type = 0;   // ibv_qp_type
  std::uint32_t access = 0;
  std::uint32_t dest_qpn = 0;
  wire::IpAddress local_gid;
  wire::IpAddress remote_gid;
  rdma::ChannelKind channel{};
  TrafficView traffic;
};

struct MemoryRegionView {
  std::uint32_t key = 0;
  std::uint32_t access = 0;
  std::uint64_t iova = 0;
  std::uint64_t length = 0;
  bool is_window = false;
};

TrafficView traffic_of(const rdma::TrafficCounters& counters);

// Those in use whose number is of `function`: others are nonsense.
std::vector<QueuePairView> queue_pairs_of(const rdma::Window& window, std::uint32_t function);
std::vector<MemoryRegionView> memory_regions_of(const rdma::Window& window);

}  // namespace isthmus::control
