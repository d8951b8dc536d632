// CmAddresses: this host's GID table, as the connection manager asks for it.
//
// Threading: shard-confined.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "base/result.h"
#include "cm/host.h"
#include "control/gid_table.h"

namespace isthmus::control {

class CmAddresses final : public cm::HostAddresses {
 public:
  // The kernel's choice of a source address; see os/route_probe.h.
  using RouteLookup = std::function<Result<wire::IpAddress>(const wire::IpAddress&)>;

  explicit CmAddresses(RouteLookup route) : route_(std::move(route)) {}

  void set_gids(std::vector<LocalGid> gids) { gids_ = std::move(gids); }
  const std::vector<LocalGid>& gids() const { return gids_; }

  std::optional<cm::LocalAddress> find(const wire::IpAddress& ip) const override;

  // The kernel's choice where it is a GID of ours. Where it is not (a daemon that was told its
  // addresses, such as 127.0.0.2, while the kernel says 127.0.0.1), the first one of the same
  // family and the same reach.
  Result<cm::LocalAddress> source_for(const wire::IpAddress& destination) const override;

 private:
  RouteLookup route_;
  std::vector<LocalGid> gids_;
};

// The largest path MTU (enum ibv_mtu) that fits an interface: 80 bytes are left for headers, as
// soft-RoCE does, so that both ends of a link agree.
std::uint8_t path_mtu_of(std::uint32_t interface_mtu_bytes);

}  // namespace isthmus::control
