// PortTable: who holds which port of which port space, with the rules of sockets.
//
// Two holders of a port are in conflict when their addresses overlap: the same address, or a
// wildcard of a family that the other one uses. An IPv6 wildcard that is not restricted to its
// family covers IPv4 as well. With REUSEADDR on both, the conflict waits until one of them listens.
//
// Threading: shard-confined.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <vector>

#include "base/result.h"
#include "wire/ip.h"
#include "wire/rdma_cm_header.h"

namespace isthmus::cm {

enum class Family : std::uint8_t { kV4, kV6 };

struct PortClaim {
  std::uint32_t holder = 0;  // An id's handle.
  Family family = Family::kV4;
  bool wildcard = false;
  wire::IpAddress ip;         // Not of a wildcard.
  bool family_only = false;   // A wildcard of IPv6 that leaves IPv4 alone.
  bool reuse_address = false;
  bool listening = false;
};

class PortTable {
 public:
  using Random = std::function<std::uint64_t()>;

  // Ports that are given to those who ask for port 0, as Linux's net.ipv4.ip_local_port_range.
  static constexpr std::uint16_t kFirstEphemeral = 32768;
  static constexpr std::uint16_t kLastEphemeral = 60999;

  explicit PortTable(Random random) : random_(std::move(random)) {}

  // Takes `port`, or a free one for port 0, and returns it. kAddressInUse: a conflict, or no port
  // is free.
  Result<std::uint16_t> bind(wire::PortSpace space, std::uint16_t port, const PortClaim& claim);
  // kAddressInUse: another holder's address overlaps; listening is never shared.
  Result<void> listen(wire::PortSpace space, std::uint16_t port, std::uint32_t holder);
  void release(wire::PortSpace space, std::uint16_t port, std::uint32_t holder);

  // The listener for a request to this address: the exact one, else a wildcard; 0: none.
  std::uint32_t listener_for(wire::PortSpace space, std::uint16_t port,
                             const wire::IpAddress& ip) const;

 private:
  struct Key {
    wire::PortSpace space;
    std::uint16_t port;
    friend auto operator<=>(const Key&, const Key&) = default;
  };
  static bool overlap(const PortClaim& a, const PortClaim& b);

  Random random_;
  std::map<Key, std::vector<PortClaim>> claims_;
};

}  // namespace isthmus::cm
