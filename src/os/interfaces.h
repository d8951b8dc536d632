// The network interfaces of the calling thread's network namespace and their addresses.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "wire/ip.h"

namespace isthmus::os {

struct InterfaceAddress {
  wire::IpAddress address;
  unsigned prefix_bits = 0;  // Of the family's own length: 8 for 127.0.0.1/8, 64 for fe80::1/64.
};

struct Interface {
  std::string name;
  unsigned index = 0;
  wire::MacAddress mac{};  // Zero for the loopback.
  std::uint32_t mtu = 0;   // Bytes.
  bool is_up = false;
  bool is_loopback = false;
  std::string driver;  // As ethtool shows it: "veth", "virtio_net"; empty when unknown.
  std::vector<InterfaceAddress> addresses;  // As the kernel lists them.

  // Has the address, or is the loopback and the address one of 127.0.0.0/8, all of which are local.
  bool owns(const wire::IpAddress& address) const;
};

// In the kernel's order, which is that of their making.
Result<std::vector<Interface>> list_interfaces();

}  // namespace isthmus::os
