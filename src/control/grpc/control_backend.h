// ControlBackend: what the gRPC service wants from the daemon.
//
// Threading: every function is called on the daemon's loop. PacketSink::push is, too, and must not
// block.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "control/grpc/report.h"

namespace isthmus::control {

// Takes the packets of one capture. Dropped by whoever holds the other end: expired means stop.
class PacketSink {
 public:
  virtual ~PacketSink() = default;
  virtual void push(PacketBatchReport batch) = 0;
};

class ControlBackend {
 public:
  virtual ~ControlBackend() = default;

  virtual VersionReport version() = 0;
  virtual StatusReport status(const StatusDetail& detail) = 0;
  virtual PolicyReport policy() = 0;
  virtual Result<PolicyReport> change_policy(const PolicyChange& change) = 0;
  // The number of queue pairs whose owners were asked.
  virtual Result<std::uint32_t> change_channel(const ChannelChange& change) = 0;
  // Packets go to `sink` until it expires. qpn 0: of all queue pairs.
  virtual Result<void> capture(std::uint32_t qpn, std::weak_ptr<PacketSink> sink) = 0;
};

}  // namespace isthmus::control
