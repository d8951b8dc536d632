// The GUID of the device of a place: one number for all its users, from its addresses.
#pragma once

#include <cstdint>
#include <span>

#include "wire/ip.h"

namespace isthmus::attach {

struct GuidSource {
  wire::IpAddress address;
  wire::MacAddress mac{};
};

// Host order, never 0: EUI-64 of the first MAC address; where there is none (a host that only has
// its loopback), one made of the first address.
std::uint64_t node_guid_of(std::span<const GuidSource> sources);

}  // namespace isthmus::attach
