#include "verbs/device_files.h"

#include <cstdio>

#include "rdma/limits.h"

namespace isthmus::verbs {
namespace {

// The major number of InfiniBand character devices and the minor of the first uverbs device.
constexpr const char* kUverbsNumber = "231:192\n";

constexpr const char* kCounters[] = {
    "excessive_buffer_overrun_errors", "link_downed", "link_error_recovery",
    "local_link_integrity_errors", "multicast_rcv_packets", "multicast_xmit_packets",
    "port_rcv_constraint_errors", "port_rcv_data", "port_rcv_errors", "port_rcv_packets",
    "port_rcv_remote_physical_errors", "port_rcv_switch_relay_errors",
    "port_xmit_constraint_errors", "port_xmit_data", "port_xmit_discards", "port_xmit_packets",
    "port_xmit_wait", "symbol_error", "unicast_rcv_packets", "unicast_xmit_packets", "VL15_dropped",
};

// "0200:00ff:fe00:0001"
std::string guid_text(std::uint64_t guid) {
  const auto group = [guid](int shift) { return static_cast<unsigned>(guid >> shift & 0xffff); };
  char text[32];
  std::snprintf(text, sizeof text, "%04x:%04x:%04x:%04x\n", group(48), group(32), group(16),
                group(0));
  return text;
}

// All eight groups, as the kernel prints a GID.
std::string gid_text(const wire::IpAddress& address) {
  std::string text;
  for (std::size_t i = 0; i < wire::IpAddress::kBytes; i += 2) {
    char group[8];
    std::snprintf(group, sizeof group, "%s%02x%02x", i == 0 ? "" : ":",
                  std::to_integer<unsigned>(address.bytes()[i]),
                  std::to_integer<unsigned>(address.bytes()[i + 1]));
    text += group;
  }
  return text + "\n";
}

class FileList {
 public:
  void file(const std::string& path, std::string content) {
    files_.push_back({path, std::move(content), false});
  }
  void folder(const std::string& path) { files_.push_back({path, "", true}); }
  std::vector<DeviceFile> take() { return std::move(files_); }

 private:
  std::vector<DeviceFile> files_;
};

void add_port_files(const DeviceFacts& facts, FileList& list) {
  const std::string port = std::string(kDevicePath) + "/ports/1";
  list.file(port + "/state", "4: ACTIVE\n");
  list.file(port + "/phys_state", "5: LinkUp\n");
  list.file(port + "/rate", "100 Gb/sec (4X EDR)\n");
  list.file(port + "/lid", "0x0\n");
  list.file(port + "/sm_lid", "0x0\n");
  list.file(port + "/sm_sl", "0\n");
  list.file(port + "/lid_mask_count", "0\n");
  list.file(port + "/cap_mask", "0x00010000\n");
  list.file(port + "/link_layer", "Ethernet\n");
  list.file(port + "/pkeys/0", "0xffff\n");
  for (const char* counter : kCounters) {
    list.file(port + "/counters/" + counter, "0\n");
  }
  list.folder(port + "/hw_counters");
  for (std::size_t i = 0; i < rdma::kMaxGids; ++i) {
    const std::string index = std::to_string(i);
    const bool used = i < facts.gids.size() && facts.gids[i].is_used();
    list.file(port + "/gids/" + index, gid_text(used ? facts.gids[i].address : wire::IpAddress{}));
    // The kernel's files of unused entries exist and cannot be read; here they do not exist.
    if (!used) continue;
    list.file(port + "/gid_attrs/types/" + index, "RoCE v2\n");
    list.file(port + "/gid_attrs/ndevs/" + index, facts.gids[i].interface_name + "\n");
  }
}

// Of the bus device below: what programs look for to find near processors and the interface.
void add_bus_files(const DeviceFacts& facts, const std::string& folder, FileList& list) {
  list.file(folder + "/numa_node", "-1\n");
  list.file(folder + "/vendor", "0xffff\n");
  list.file(folder + "/device", "0x0000\n");
  std::string before;
  for (const GidFact& gid : facts.gids) {
    if (gid.is_used() && gid.interface_name != before) {
      list.folder(folder + "/net/" + gid.interface_name);
    }
    before = gid.interface_name;
  }
}

}  // namespace

std::vector<DeviceFile> device_files(const DeviceFacts& facts) {
  FileList list;
  const std::string device = kDevicePath;
  list.file(device + "/node_type", "1: CA\n");
  list.file(device + "/fw_ver", std::string(kFirmwareVersion) + "\n");
  list.file(device + "/hw_rev", "1\n");
  list.file(device + "/hca_type", "isthmus\n");
  list.file(device + "/board_id", std::string(kBoardId) + "\n");
  list.file(device + "/node_desc", "isthmus\n");
  list.file(device + "/node_guid", guid_text(facts.guid));
  list.file(device + "/sys_image_guid", guid_text(facts.guid));
  add_port_files(facts, list);
  add_bus_files(facts, device + "/device", list);

  const std::string uverbs = kUverbsPath;
  list.file(std::string(kVerbsClassPath) + "/abi_version", "6\n");
  list.file(uverbs + "/ibdev", std::string(kDeviceName) + "\n");
  list.file(uverbs + "/abi_version", "1\n");
  list.file(uverbs + "/dev", kUverbsNumber);
  add_bus_files(facts, uverbs + "/device", list);
  list.file(device + "/device/infiniband_verbs/uverbs0/dev", kUverbsNumber);
  return list.take();
}

std::optional<std::string> read_device_file(const DeviceFacts& facts, std::string_view path) {
  for (const DeviceFile& file : device_files(facts)) {
    if (!file.is_folder && file.path == path) return file.content;
  }
  return std::nullopt;
}

}  // namespace isthmus::verbs
