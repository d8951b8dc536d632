#include "rdmacm/device_registry.h"

#include <fcntl.h>

#include <algorithm>

#include "rdmacm/failure.h"

namespace isthmus::rdmacm {

Result<void> DeviceRegistry::list_devices() {
  int count = 0;
  ibv_device** list = ibv_get_device_list(&count);
  if (list == nullptr || count == 0) {
    if (list != nullptr) ibv_free_device_list(list);
    return fail_with(ENODEV, "find an RDMA device (start the program with `isthmus run`)");
  }
  bool keep_list = false;
  for (int i = 0; i < count; ++i) {
    ibv_device* const found = list[i];
    const bool known = std::ranges::any_of(
        devices_, [&](const std::unique_ptr<Device>& d) { return d->device == found; });
    if (known) continue;
    auto device = std::make_unique<Device>();
    device->device = found;
    device->guid = ibv_get_device_guid(found);
    devices_.push_back(std::move(device));
    keep_list = true;  // A device of a freed list lives only as long as it is open.
  }
  if (!keep_list) ibv_free_device_list(list);
  return {};
}

Result<void> DeviceRegistry::open(Device& device) {
  if (device.context != nullptr) return {};
  ibv_context* const context = ibv_open_device(device.device);
  if (context == nullptr) return fail_with(errno != 0 ? errno : ENODEV, "open the RDMA device");
  ibv_device_attr attributes{};
  if (const int error = ibv_query_device(context, &attributes); error != 0) {
    ibv_close_device(context);
    return fail_with(error, "ask the RDMA device for its limits");
  }
  constexpr int kLargestByte = 255;
  device.context = context;
  device.max_work_requests = attributes.max_qp_wr;
  device.max_initiator_depth =
      static_cast<std::uint8_t>(std::min(attributes.max_qp_init_rd_atom, kLargestByte));
  device.max_responder_resources =
      static_cast<std::uint8_t>(std::min(attributes.max_qp_rd_atom, kLargestByte));
  return {};
}

Result<Device*> DeviceRegistry::acquire(std::uint64_t guid) {
  std::lock_guard lock(mutex_);
  const auto find = [&]() -> Device* {
    for (const auto& device : devices_) {
      if (device->guid == guid) return device.get();
    }
    return nullptr;
  };
  Device* device = find();
  if (device == nullptr) {
    ISTHMUS_TRY_VOID(list_devices());
    device = find();
  }
  if (device == nullptr) {
    return fail_with(ENODEV, "find the RDMA device that the connection manager named");
  }
  ISTHMUS_TRY_VOID(open(*device));
  if (device->pd == nullptr) {
    device->pd = ibv_alloc_pd(device->context);
    if (device->pd == nullptr) return fail_with(errno, "make the default protection domain");
  }
  ++device->users;
  return device;
}

void DeviceRegistry::release(Device& device) {
  std::lock_guard lock(mutex_);
  if (--device.users != 0) return;
  // A program may still hold a region of the default pd; then the pd stays for the next user.
  if (ibv_dealloc_pd(device.pd) == 0) device.pd = nullptr;
  if (device.xrcd != nullptr && ibv_close_xrcd(device.xrcd) == 0) device.xrcd = nullptr;
}

Result<ibv_xrcd*> DeviceRegistry::shared_xrcd(Device& device) {
  std::lock_guard lock(mutex_);
  if (device.xrcd == nullptr) {
    ibv_xrcd_init_attr attributes{};
    attributes.comp_mask = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS;
    attributes.fd = -1;
    attributes.oflags = O_CREAT;
    device.xrcd = ibv_open_xrcd(device.context, &attributes);
    if (device.xrcd == nullptr) return fail_with(errno, "open an XRC domain");
  }
  return device.xrcd;
}

Result<std::vector<ibv_context*>> DeviceRegistry::open_all() {
  std::lock_guard lock(mutex_);
  ISTHMUS_TRY_VOID(list_devices());
  std::vector<ibv_context*> contexts;
  for (const auto& device : devices_) {
    if (open(*device)) contexts.push_back(device->context);
  }
  return contexts;
}

int DeviceRegistry::smallest_queue() {
  if (!open_all()) return 0;
  std::lock_guard lock(mutex_);
  int smallest = 0;
  for (const auto& device : devices_) {
    if (device->context == nullptr) continue;
    if (smallest == 0 || device->max_work_requests < smallest) {
      smallest = device->max_work_requests;
    }
  }
  return smallest;
}

}  // namespace isthmus::rdmacm
