// ControlClient: the operator's side of control.proto.
//
// Errors: kNotFound or kRefused: no daemon there; kDenied: it belongs to another user; kTimedOut:
// it does not answer; anything else as the daemon said it.
//
// Threading: one thread at a time; cancel() from any, and from a signal handler's thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "control/grpc/report.h"

namespace isthmus::control {

enum class Continue { kYes, kNo };

class ControlClient {
 public:
  static Result<std::unique_ptr<ControlClient>> connect(const std::string& socket_path);
  virtual ~ControlClient() = default;

  virtual Result<VersionReport> version() = 0;
  virtual Result<StatusReport> status(const StatusDetail& detail) = 0;
  // Calls `next` for each report until it says kNo, cancel() is called or the daemon ends.
  virtual Result<void> watch_status(const StatusDetail& detail, std::uint32_t interval_ms,
                                    const std::function<Continue(StatusReport)>& next) = 0;
  virtual Result<PolicyReport> policy() = 0;
  virtual Result<PolicyReport> change_policy(const PolicyChange& change) = 0;
  virtual Result<std::uint32_t> change_channel(const ChannelChange& change) = 0;
  virtual Result<void> capture(std::uint32_t qpn,
                               const std::function<Continue(PacketBatchReport)>& next) = 0;
  // Ends the stream under way, which then returns without an error.
  virtual void cancel() = 0;
};

}  // namespace isthmus::control
