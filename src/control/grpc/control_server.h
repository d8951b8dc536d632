// ControlServer: the gRPC service of control.proto on a unix socket.
//
// A call arrives on a thread of gRPC's, is posted to the daemon's loop, and waits there for its
// answer at most kLoopPatience. The socket is readable and writable by its owner alone: whoever may
// connect may change the policy.
//
// Threading: create and destroy on the daemon's loop or its starting thread; destroying ends all
// calls first. Everything in here runs on gRPC's threads.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "control/grpc/control_backend.h"

namespace isthmus::control {

constexpr std::chrono::seconds kLoopPatience{5};

// Runs a function on the daemon's loop; false: the loop has ended.
using PostToLoop = std::function<bool(std::function<void()>)>;

class ControlServer {
 public:
  static Result<std::unique_ptr<ControlServer>> create(const std::string& socket_path,
                                                       PostToLoop post, ControlBackend& backend);
  virtual ~ControlServer() = default;
};

// NAME.sock -> NAME.control.sock; without ".sock", NAME.control.
std::string control_socket_path(const std::string& attach_socket_path);

}  // namespace isthmus::control
