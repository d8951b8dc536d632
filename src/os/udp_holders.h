// Who holds a UDP port: for the message when it is not ours to have.
#pragma once

#include <cstdint>
#include <vector>

#include "base/result.h"
#include "wire/ip.h"

namespace isthmus::os {

struct UdpHolder {
  wire::IpAddress address;     // As bound: 0.0.0.0 (as IPv4) and :: are the wildcards.
  std::uint32_t user_id = 0;
  bool is_kernel = false;      // A socket of the kernel itself, as of the rdma_rxe module.
};

// Every UDP socket bound to `port` in the calling thread's network namespace.
Result<std::vector<UdpHolder>> list_udp_holders(std::uint16_t port);

}  // namespace isthmus::os
