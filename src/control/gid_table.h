// The GID table: which addresses of this host are GIDs, and in which order.
//
// Programs name a GID by its index and many take 0 or 1 without looking, so the order is that of
// soft-RoCE: first the link-local IPv6 address of the first real interface, then the IPv4 addresses
// of the real interfaces, then their other IPv6 addresses, then those of the loopback. Where the
// daemon was told its addresses, these are the table, in the order told.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "os/interfaces.h"
#include "wire/ip.h"

namespace isthmus::control {

struct LocalGid {
  wire::IpAddress address;
  std::string interface_name;
  wire::MacAddress mac{};
  std::uint32_t mtu = 0;  // Bytes, of the interface.
  bool is_internal = false;  // Its packets come from this machine alone: loopback, veth.
  friend bool operator==(const LocalGid&, const LocalGid&) = default;
};

// At most rdma::kMaxGids. kNotFound: one of `only` is on no interface, or nothing is up.
Result<std::vector<LocalGid>> make_gid_table(std::span<const os::Interface> interfaces,
                                             std::span<const wire::IpAddress> only);

}  // namespace isthmus::control
