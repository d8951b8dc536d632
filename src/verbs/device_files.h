// The files that sysfs would have for the device: /sys/class/infiniband/isthmus0 and what belongs
// to it. One table serves ibv_read_sysfs_file and the file-name shim of src/preload.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "verbs/device_facts.h"

namespace isthmus::verbs {

constexpr const char* kSysfsPath = "/sys";
constexpr const char* kClassPath = "/sys/class/infiniband";
constexpr const char* kVerbsClassPath = "/sys/class/infiniband_verbs";
constexpr const char* kDevicePath = "/sys/class/infiniband/isthmus0";
constexpr const char* kUverbsPath = "/sys/class/infiniband_verbs/uverbs0";

struct DeviceFile {
  std::string path;     // Whole, from /sys.
  std::string content;  // With its final line feed; of a folder: empty.
  bool is_folder = false;
};

// Every file, and the folders that hold none. What is a link in sysfs is a folder here.
std::vector<DeviceFile> device_files(const DeviceFacts& facts);

// The content of one of them.
std::optional<std::string> read_device_file(const DeviceFacts& facts, std::string_view path);

}  // namespace isthmus::verbs
