// RawPackets: the raw packet queue pairs of an engine: work requests are whole Ethernet frames.
//
// Sending is one frame for each request, complete when the kernel has it. Of what arrives, each
// frame goes to the queue pair of the first rule that matches it, in the order of ibv_create_flow:
// smaller priorities first, then older rules; to several when they have the same rule. What no
// rule wants, and what finds no receive request posted, is dropped. Frames longer than any on the
// wire can be, as the kernel makes by joining segments, are dropped too.
//
// Threading: shard-confined, under the engine's lock.
// Input: frames come from the wire; only FlowFields are read from them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "rdma/flow_rule.h"
#include "rdma/frame_port.h"

namespace isthmus::rdma {

struct EngineState;
class QueuePair;

class RawPackets {
 public:
  RawPackets(EngineState& engine, std::unique_ptr<FramePort> port);
  RawPackets(const RawPackets&) = delete;
  RawPackets& operator=(const RawPackets&) = delete;

  // Sends what the queue pair may send. True: stopped only by its share of the round.
  bool transmit(QueuePair& qp);

  // The number that names the rule from now on. kNoMemory: all are taken.
  Result<std::uint32_t> attach(QueuePair& qp, const FlowRule& rule);
  void detach(std::uint32_t number);

  // True: something arrived.
  bool receive();

 private:
  struct Attached {
    std::uint32_t number;
    QueuePair* qp;
    FlowRule rule;
  };

  void deliver(IncomingFrame frame);

  EngineState& engine_;
  std::unique_ptr<FramePort> port_;
  std::vector<Attached> rules_;  // In the order in which they are asked.
  std::uint32_t next_number_ = 1;
  std::vector<iovec> pieces_;
  std::vector<OutgoingFrame> outgoing_;
};

}  // namespace isthmus::rdma
