// DeviceFacts: what there is to know about the one device, from the grant of the daemon.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>
#include <string>
#include <vector>

#include "attach/attach_client.h"
#include "wire/ip.h"

namespace isthmus::verbs {

constexpr const char* kDeviceName = "isthmus0";
constexpr const char* kUverbsName = "uverbs0";
constexpr const char* kFirmwareVersion = "0.1.0";
constexpr const char* kBoardId = "ISTHMUS-SOFT";
// As soft-RoCE: "no vendor".
constexpr std::uint32_t kVendorId = 0xff'ffff;
// The headers of RoCEv2 and room for what a network may add: 80 bytes, as the kernel reckons.
constexpr std::uint32_t kHeaderAllowanceBytes = 80;

struct GidFact {
  wire::IpAddress address;
  std::string interface_name;
  unsigned interface_index = 0;  // 0: not in our network namespace.
  wire::MacAddress mac{};
  std::uint32_t mtu = 0;  // Bytes, of the interface.

  bool is_used() const { return !address.is_zero(); }
};

struct DeviceFacts {
  std::uint64_t guid = 0;      // Host order; never 0.
  std::vector<GidFact> gids;   // By GID index; unused ones are zero.
  ibv_mtu active_mtu = IBV_MTU_1024;
};

DeviceFacts facts_of(std::uint64_t guid, const std::vector<attach::GidInfo>& gids);

// The largest path MTU whose packets an interface carries whole.
ibv_mtu path_mtu_of(std::uint32_t interface_mtu);

}  // namespace isthmus::verbs
