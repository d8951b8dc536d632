#include "preload/device_tree.h"

#include <algorithm>
#include <filesystem>
#include <functional>

#include "attach/attach_client.h"
#include "base/log.h"
#include "os/process.h"
#include "os/text_file.h"
#include "verbs/device_facts.h"
#include "verbs/device_files.h"

namespace isthmus::preload {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTreePrefix = "device-files-";
constexpr const char* kSocketFile = "socket";  // In a tree: whose device it shows.
constexpr const char* kDeviceNodes[] = {"/dev/infiniband/uverbs0", "/dev/infiniband/rdma_cm"};

std::string folder_of_this_user() {
  const std::string runtime = os::environment_variable("XDG_RUNTIME_DIR");
  if (!runtime.empty()) return runtime + "/isthmus";
  return "/tmp/isthmus-" + std::to_string(os::effective_user_id());
}

// Another daemon at the same path has made its socket at another time.
std::string name_of_tree(const std::string& socket_path) {
  std::error_code ignored;
  const auto made = fs::last_write_time(socket_path, ignored).time_since_epoch().count();
  const std::size_t name = std::hash<std::string>{}(socket_path + " " + std::to_string(made));
  return kTreePrefix + std::to_string(name);
}

// Trees of daemons that are gone.
void remove_old_trees(const std::string& folder) {
  for (const std::string& name : os::list_folder(folder)) {
    if (!name.starts_with(kTreePrefix)) continue;
    const std::string tree = folder + "/" + name;
    const auto socket = os::read_text_file(tree + "/" + kSocketFile);
    if (socket && os::path_exists(*socket)) continue;
    if (const auto removed = os::remove_tree(tree); !removed) continue;
  }
}

Result<void> write_file(const std::string& path, const std::string& content) {
  std::error_code failure;
  fs::create_directories(fs::path(path).parent_path(), failure);
  if (failure) return fail_errno(failure.value(), "make a folder for " + path);
  return os::write_text_file(path, content, os::TextFileAccess::kOwner);
}

Result<void> write_tree(const std::string& tree, const std::string& socket_path) {
  auto attachment =
      ISTHMUS_TRY(attach::AttachClient::connect(attach::AttachOptions::from_environment()));
  const attach::FunctionGrant& grant = attachment->grant();
  for (const verbs::DeviceFile& file :
       verbs::device_files(verbs::facts_of(grant.node_guid, grant.gids))) {
    if (!file.is_folder) {
      ISTHMUS_TRY_VOID(write_file(tree + file.path, file.content));
      continue;
    }
    std::error_code failure;
    fs::create_directories(tree + file.path, failure);
    if (failure) return fail_errno(failure.value(), "make the folder " + tree + file.path);
  }
  // For those who list the folder; whoever opens one gets /dev/null.
  for (const char* node : kDeviceNodes) ISTHMUS_TRY_VOID(write_file(tree + node, ""));
  return write_file(tree + "/" + kSocketFile, socket_path);
}

Result<std::string> make_tree() {
  const std::string socket_path = attach::AttachOptions::from_environment().socket_path;
  const std::string folder = folder_of_this_user();
  const std::string tree = folder + "/" + name_of_tree(socket_path);
  ISTHMUS_TRY_VOID(os::make_private_folder(folder));
  if (os::path_exists(tree)) return tree;

  remove_old_trees(folder);
  const std::string unfinished = tree + "." + std::to_string(os::process_id());
  const auto written = write_tree(unfinished, socket_path);
  std::error_code failure;
  if (written) fs::rename(unfinished, tree, failure);
  // Another process was faster, or it did not work out.
  if (!written || failure) {
    if (const auto removed = os::remove_tree(unfinished); !removed) {
      ISTHMUS_LOG(kDebug, "%s", removed.error().message.c_str());
    }
  }
  if (!written) return std::unexpected(written.error());
  return tree;
}

}  // namespace

const std::string& device_tree() {
  // Never destroyed: programs open files until their very end.
  static const std::string& tree = *new std::string([] {
    auto made = make_tree();
    if (!made) ISTHMUS_LOG(kInfo, "no device files: %s", made.error().message.c_str());
    return made ? *made : std::string();
  }());
  return tree;
}

}  // namespace isthmus::preload
