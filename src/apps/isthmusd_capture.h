// Captures: gives every function a ring while somebody captures, and empties the rings into the
// sinks.
//
// Threading: shard-confined to the loop.
// Input: a ring is written by the function's process, which may leave nonsense in it; its reader
// checks, and a ring with nonsense is given up.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "control/cm_service.h"
#include "control/event_loop.h"
#include "control/function_service.h"
#include "control/grpc/control_backend.h"
#include "rdma/capture_ring.h"

namespace isthmus::apps {

class Captures final : public control::FunctionObserver {
 public:
  Captures(control::EventLoop& loop, control::FunctionService& functions)
      : loop_(loop), functions_(functions) {}
  ~Captures() override;

  // Packets of one queue pair, or of all (0), go to `sink` until it expires.
  void add(std::uint32_t qpn, std::weak_ptr<control::PacketSink> sink);

  // A datagram of the daemon's own queue pair 1.
  void note(const control::CmDatagram& datagram, bool incoming);

  void on_attached(const control::Function& function) override;
  void on_detached(const control::Function& function) override;

 private:
  struct Sink {
    std::uint32_t qpn = 0;
    std::weak_ptr<control::PacketSink> target;
    control::PacketBatchReport batch;
  };
  struct Ring {
    std::unique_ptr<rdma::CaptureReader> reader;
    std::int32_t process_id = 0;
  };

  bool active() const { return !sinks_.empty(); }
  Result<void> open_ring(const control::Function& function);
  void empty(Ring& ring);
  void deliver(const control::PacketReport& packet);
  void look();
  void stop();

  control::EventLoop& loop_;
  control::FunctionService& functions_;
  std::vector<Sink> sinks_;
  std::map<std::uint32_t, Ring> rings_;  // By function.
  std::uint64_t dropped_by_gone_rings_ = 0;
  control::EventLoop::TimerId timer_ = control::EventLoop::TimerId::kNone;
};

}  // namespace isthmus::apps
