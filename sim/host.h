// Host: an engine on a simulated network, and a connected queue pair with memory to work on.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "os/shared_memory.h"
#include "rdma/completion_queue.h"
#include "rdma/engine.h"
#include "rdma/memory_region.h"
#include "rdma/peer_window.h"
#include "rdma/queue_pair.h"
#include "rdma/shared_receive_queue.h"
#include "sim/network.h"

namespace isthmus::sim {

class Host : public rdma::EngineListener {
 public:
  Host(Network& network, const wire::IpAddress& address, std::uint32_t function);

  void on_completion_event(rdma::CompletionQueue&) override { ++completion_events; }
  void on_async_event(ibv_event_type type, rdma::QueuePair*, rdma::CompletionQueue*,
                      rdma::SharedReceiveQueue*) override {
    async_events.push_back(type);
  }

  // This host as a neighbour in the same process sees it.
  std::shared_ptr<rdma::PeerWindow> as_neighbour();

  wire::IpAddress address;
  std::unique_ptr<os::Mapping> mapping;
  rdma::Window* window;
  int completion_events = 0;
  std::vector<ibv_event_type> async_events;
  std::unique_ptr<rdma::Engine> engine;
};

constexpr unsigned kAllAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE |
                                IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC |
                                IBV_ACCESS_MW_BIND;

struct EndOptions {
  ibv_qp_type type = IBV_QPT_RC;
  std::uint32_t depth = 64;
  std::size_t memory_bytes = 1 << 20;
  bool signal_all = true;
  unsigned access = kAllAccess;
};

// One end of a connection: everything a program would create for it.
class End {
 public:
  End(Host& host, const EndOptions& options = {});

  ibv_sge sge(std::size_t offset, std::size_t bytes);
  std::uint64_t address_of(std::size_t offset);
  int post_recv(std::uint64_t wr_id, std::size_t offset, std::size_t bytes);
  int post_send(ibv_send_wr wr, std::vector<ibv_sge> sges);
  std::vector<ibv_wc> poll(rdma::CompletionQueue& cq);

  Host& host;
  std::vector<std::byte> memory;
  std::unique_ptr<rdma::ProtectionDomain> pd;
  std::unique_ptr<rdma::CompletionQueue> send_cq;
  std::unique_ptr<rdma::CompletionQueue> recv_cq;
  std::unique_ptr<rdma::MemoryRegion> mr;
  std::unique_ptr<rdma::QueuePair> qp;
};

struct ConnectOptions {
  ibv_mtu mtu = IBV_MTU_1024;
  std::uint8_t timeout = 10;     // 4.2 ms, raised to the engine's floor.
  std::uint8_t retry_count = 7;
  std::uint8_t rnr_retry = 7;
  std::uint8_t read_atomic = 4;
  std::uint32_t first_psn = 0xff'fff0;  // Wraps early.
  bool neighbours = false;       // Offer the memory channel.
};

void connect(End& a, End& b, const ConnectOptions& options = {});

// Runs both hosts until `done` or until the clock reaches `limit_ns` from now. True: done.
bool run_until(Network& network, std::vector<Host*> hosts, const std::function<bool()>& done,
               std::uint64_t limit_ns = 60'000'000'000);

}  // namespace isthmus::sim
