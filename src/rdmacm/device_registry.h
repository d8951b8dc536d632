// The RDMA devices of this process, each opened at most once.
//
// An id that is bound to an address has id->verbs and id->pd; all ids of one device share one
// context and one default protection domain, so that programs may share memory regions and
// completion queues between them, as they do with the real library.
//
// Threading: any thread. Opening a device waits for the daemon with the lock held: nobody can go on
// without the device anyway.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "base/result.h"
#include "rdmacm/abi.h"

namespace isthmus::rdmacm {

struct Device {
  ibv_device* device = nullptr;
  ibv_context* context = nullptr;  // Null: not opened yet. Never closed before the process ends.
  std::uint64_t guid = 0;          // Network order, as ibv_get_device_guid.
  ibv_pd* pd = nullptr;            // While there are users.
  ibv_xrcd* xrcd = nullptr;        // Made on demand, gone with the last user.
  int users = 0;
  int max_work_requests = 0;
  std::uint8_t max_initiator_depth = 0;
  std::uint8_t max_responder_resources = 0;
};

class DeviceRegistry {
 public:
  DeviceRegistry() = default;
  DeviceRegistry(const DeviceRegistry&) = delete;
  DeviceRegistry& operator=(const DeviceRegistry&) = delete;

  // The device of that GUID, opened, with its default pd. Each acquire needs one release.
  Result<Device*> acquire(std::uint64_t guid);
  void release(Device& device);

  // The domain that XRC ids of one process share.
  Result<ibv_xrcd*> shared_xrcd(Device& device);

  // Every device of the process, opened.
  Result<std::vector<ibv_context*>> open_all();

  // The smallest max_qp_wr of all devices; 0 without a device.
  int smallest_queue();

 private:
  Result<void> list_devices();
  Result<void> open(Device& device);

  std::mutex mutex_;
  std::vector<std::unique_ptr<Device>> devices_;
};

}  // namespace isthmus::rdmacm
