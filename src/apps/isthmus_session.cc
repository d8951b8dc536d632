#include "apps/isthmus_session.h"

#include "attach/socket_path.h"
#include "control/grpc/control_server.h"

namespace isthmus::apps {

std::string attach_socket(const GlobalOptions& global) {
  return global.socket.empty() ? attach::default_socket_path() : global.socket;
}

Result<std::unique_ptr<control::ControlClient>> connect_to_daemon(const GlobalOptions& global) {
  const std::string path = attach_socket(global);
  auto client = control::ControlClient::connect(control::control_socket_path(path));
  if (client) return client;
  switch (client.error().code) {
    case ErrorCode::kNotFound:
    case ErrorCode::kRefused:
      return fail(ErrorCode::kRefused,
                  "no isthmusd answers at %s; `isthmus run -- PROGRAM` starts a private one, "
                  "`isthmusd --detach` one that stays, and --socket names another",
                  path.c_str());
    case ErrorCode::kDenied:
      return fail(ErrorCode::kDenied,
                  "the isthmusd at %s belongs to another user; become that user, or root",
                  path.c_str());
    default:
      return client;
  }
}

int exit_status_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::kInvalid:
      return kExitUsage;
    case ErrorCode::kRefused:
    case ErrorCode::kClosed:
      return kExitNoDaemon;
    case ErrorCode::kDenied:
      return kExitDenied;
    default:
      return kExitFailed;
  }
}

}  // namespace isthmus::apps
