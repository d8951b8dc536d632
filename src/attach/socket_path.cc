#include "attach/socket_path.h"

#include <cstdlib>
#include <filesystem>

#include "os/process.h"

namespace isthmus::attach {
namespace {

constexpr const char* kSystemPath = "/run/isthmus/isthmusd.sock";

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

std::string private_socket_path() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  if (runtime && *runtime) return std::string(runtime) + "/isthmus/isthmusd.sock";
  return "/tmp/isthmus-" + std::to_string(os::effective_user_id()) + "/isthmusd.sock";
}

std::string default_socket_path() {
  const char* chosen = std::getenv("ISTHMUS_SOCKET");
  if (chosen && *chosen) return chosen;
  const std::string own = private_socket_path();
  return !exists(own) && exists(kSystemPath) ? kSystemPath : own;
}

}  // namespace isthmus::attach
