#include "control/grpc/control_server.h"

namespace isthmus::control {

std::string control_socket_path(const std::string& attach_socket_path) {
  constexpr std::string_view kSuffix = ".sock";
  if (attach_socket_path.ends_with(kSuffix)) {
    return attach_socket_path.substr(0, attach_socket_path.size() - kSuffix.size()) +
           ".control.sock";
  }
  return attach_socket_path + ".control";
}

}  // namespace isthmus::control
