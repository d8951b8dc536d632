// Finding and opening the device, and the files that describe it.
//
// There is one device where a daemon answers, and none elsewhere. To list it means to attach: the
// attachment that a list was made with becomes the context of the first device opened from it, so
// that a program that lists and opens attaches once.
#include "verbs/device_list.h"

#include <infiniband/verbs.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>

#include "attach/attach_client.h"
#include "base/log.h"
#include "os/process.h"
#include "verbs/context.h"
#include "verbs/device_files.h"

#undef ibv_get_device_list

namespace isthmus::verbs {
namespace {

// Libraries of hardware look behind a device for their own struct, compare what they find with
// theirs, and leave a device of zeros alone.
struct Device : ibv_device {
  std::byte room_for_private_layouts[1024]{};
};

struct DeviceState {
  std::mutex lock;
  Device device{};
  std::optional<DeviceFacts> facts;
  std::unique_ptr<attach::AttachClient> spare;  // Attached for a list, not yet opened.
  std::int32_t spare_owner = 0;                 // Process id.
};

// Never destroyed: programs use devices in destructors of their end.
DeviceState& device_state() {
  static DeviceState& state = *new DeviceState;
  return state;
}

void name_device(Device& device) {
  if (device.name[0]) return;
  device.node_type = IBV_NODE_CA;
  device.transport_type = IBV_TRANSPORT_IB;
  std::strncpy(device.name, kDeviceName, sizeof device.name - 1);
  std::strncpy(device.dev_name, kUverbsName, sizeof device.dev_name - 1);
  std::strncpy(device.dev_path, kUverbsPath, sizeof device.dev_path - 1);
  std::strncpy(device.ibdev_path, kDevicePath, sizeof device.ibdev_path - 1);
}

void drop_inherited_spare(DeviceState& state) {
  if (!state.spare || state.spare_owner == os::process_id()) return;
  // Of a parent: its copies of the descriptors go, and nothing is said to the daemon.
  state.spare->abandon();
  [[maybe_unused]] auto* left_alone = state.spare.release();
}

// The lock is held.
Result<void> attach_spare(DeviceState& state) {
  drop_inherited_spare(state);
  if (state.spare) return {};
  state.spare =
      ISTHMUS_TRY(attach::AttachClient::connect(attach::AttachOptions::from_environment()));
  state.spare_owner = os::process_id();
  const attach::FunctionGrant& grant = state.spare->grant();
  state.facts = facts_of(grant.node_guid, grant.gids);
  return {};
}

// rdma-core's rule: without the final line feed, and cut to the buffer with its zero.
int copy_line(std::string_view content, char* buffer, std::size_t bytes) {
  if (!content.empty() && content.back() == '\n') content.remove_suffix(1);
  if (bytes == 0) return -1;
  const std::size_t length = std::min(content.size(), bytes - 1);
  content.copy(buffer, length);
  buffer[length] = '\0';
  return static_cast<int>(length);
}

int read_real_file(const std::string& path, char* buffer, std::size_t bytes) {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file{std::fopen(path.c_str(), "re"),
                                                             &std::fclose};
  if (!file) return -1;
  std::string content(bytes, '\0');
  content.resize(std::fread(content.data(), 1, bytes, file.get()));
  return copy_line(content, buffer, bytes);
}

bool is_of_device(std::string_view path) {
  return path.starts_with(kClassPath) || path.starts_with(kVerbsClassPath);
}

}  // namespace

Result<DeviceFacts> device_facts_of_daemon() {
  DeviceState& state = device_state();
  const std::scoped_lock guard{state.lock};
  if (!state.facts) {
    ISTHMUS_TRY_VOID(attach_spare(state));
    state.spare.reset();
  }
  return *state.facts;
}

}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

ibv_device** ibv_get_device_list(int* num_devices) {
  using namespace isthmus::verbs;
  DeviceState& state = device_state();
  const std::scoped_lock guard{state.lock};
  if (num_devices) *num_devices = 0;
  auto** list = static_cast<ibv_device**>(std::calloc(2, sizeof(ibv_device*)));
  if (!list) return no_object(ENOMEM);
  if (const auto attached = attach_spare(state); !attached) {
    ISTHMUS_LOG(kError, "no RDMA device: %s", attached.error().message.c_str());
    return list;
  }
  name_device(state.device);
  list[0] = &state.device;
  if (num_devices) *num_devices = 1;
  return list;
}

void ibv_free_device_list(ibv_device** list) {
  using namespace isthmus::verbs;
  DeviceState& state = device_state();
  const std::scoped_lock guard{state.lock};
  drop_inherited_spare(state);
  state.spare.reset();
  std::free(list);
}

const char* ibv_get_device_name(ibv_device* device) { return device->name; }

__be64 ibv_get_device_guid(ibv_device*) {
  const auto facts = isthmus::verbs::device_facts_of_daemon();
  return facts ? htobe64(facts->guid) : 0;
}

int ibv_get_device_index(ibv_device*) { return 0; }

ibv_context* ibv_open_device(ibv_device* device) {
  using namespace isthmus::verbs;
  DeviceState& state = device_state();
  const std::scoped_lock guard{state.lock};
  if (const auto attached = attach_spare(state); !attached) {
    ISTHMUS_LOG(kError, "cannot open %s: %s", device->name, attached.error().message.c_str());
    return no_object(attached.error());
  }
  auto context = Context::open(*device, std::move(state.spare));
  if (!context) {
    ISTHMUS_LOG(kError, "cannot open %s: %s", device->name, context.error().message.c_str());
    return no_object(context.error());
  }
  return context->release()->abi();
}

int ibv_close_device(ibv_context* abi) {
  isthmus::verbs::Context& context = isthmus::verbs::Context::of(abi);
  if (context.is_inherited() || context.close(abi)) delete &context;
  return 0;
}

const char* ibv_get_sysfs_path() { return isthmus::verbs::kSysfsPath; }

int ibv_read_sysfs_file(const char* dir, const char* file, char* buf, size_t size) {
  using namespace isthmus::verbs;
  const std::string path = std::string(dir) + "/" + file;
  if (!is_of_device(path)) return read_real_file(path, buf, size);
  const auto facts = device_facts_of_daemon();
  if (!facts) return -1;
  const auto content = read_device_file(*facts, path);
  return content ? copy_line(*content, buf, size) : -1;
}

}  // extern "C"
#pragma GCC visibility pop
