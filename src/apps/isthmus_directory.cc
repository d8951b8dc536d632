#include "apps/isthmus_directory.h"

#include <filesystem>
#include <string_view>

#include "cluster/directory/sqlite_directory.h"
#include "cluster/etcd/etcd_directory.h"
#include "os/process.h"
#include "os/text_file.h"

namespace isthmus::apps {
namespace {

constexpr std::string_view kEtcd = "etcd://";
constexpr const char* kFile = "isthmus/directory.db";

// As gRPC names servers: several only by their addresses.
std::string grpc_target(std::string_view servers) {
  const bool several = servers.find(',') != std::string_view::npos;
  return (several ? "ipv4:" : "") + std::string(servers);
}

}  // namespace

std::string default_directory() {
  const std::string told = os::environment_variable("ISTHMUS_DIRECTORY");
  if (!told.empty()) return told;
  if (os::effective_user_id() == 0) return std::string("/var/lib/") + kFile;
  const std::string state = os::environment_variable("XDG_STATE_HOME");
  if (!state.empty()) return state + "/" + kFile;
  return os::environment_variable("HOME") + "/.local/state/" + kFile;
}

Result<std::unique_ptr<cluster::Directory>> open_directory(const std::string& place) {
  const std::string chosen = place.empty() ? default_directory() : place;
  if (chosen.starts_with(kEtcd)) {
    return cluster::open_etcd_directory(
        {.target = grpc_target(std::string_view(chosen).substr(kEtcd.size()))});
  }
  const std::filesystem::path folder = std::filesystem::path(chosen).parent_path();
  if (!folder.empty() && !os::path_exists(folder)) {
    ISTHMUS_TRY_VOID(os::make_private_folder(folder));
  }
  return cluster::open_sqlite_directory({.path = chosen, .wall_clock_ns = {}});
}

}  // namespace isthmus::apps
