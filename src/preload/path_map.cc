#include "preload/path_map.h"

#include <array>

namespace isthmus::preload {
namespace {

constexpr std::array<std::string_view, 3> kPrefixes = {
    "/sys/class/infiniband", "/sys/class/infiniband_verbs", "/dev/infiniband"};
constexpr std::array<std::string_view, 2> kDeviceNodes = {"/dev/infiniband/uverbs0",
                                                          "/dev/infiniband/rdma_cm"};

// "//" and "/./" mean nothing in a path, and programs that join names make them.
std::optional<std::string> tidy(std::string_view path) {
  std::string clean;
  while (!path.empty()) {
    const std::size_t slash = path.find('/');
    const std::string_view part = path.substr(0, slash);
    path = slash == std::string_view::npos ? std::string_view{} : path.substr(slash + 1);
    if (part.empty() || part == ".") continue;
    if (part == "..") return std::nullopt;
    clean += '/';
    clean += part;
  }
  return clean;
}

}  // namespace

bool is_device_path(std::string_view path) {
  for (const std::string_view prefix : kPrefixes) {
    if (!path.starts_with(prefix)) continue;
    if (path.size() == prefix.size() || path[prefix.size()] == '/') return true;
  }
  return false;
}

std::optional<std::string> stand_in(std::string_view path, std::string_view tree) {
  const auto clean = tidy(path);
  if (!clean) return std::nullopt;
  for (const std::string_view node : kDeviceNodes) {
    if (*clean == node) return "/dev/null";
  }
  return std::string(tree) + *clean;
}

std::string as_seen(std::string_view path, std::string_view tree) {
  return std::string(path.starts_with(tree) ? path.substr(tree.size()) : path);
}

}  // namespace isthmus::preload
