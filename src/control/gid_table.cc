#include "control/gid_table.h"

#include <algorithm>

#include "rdma/limits.h"

namespace isthmus::control {
namespace {

LocalGid gid_of(const os::Interface& entry, const wire::IpAddress& address) {
  return {.address = address,
          .interface_name = entry.name,
          .mac = entry.mac,
          .mtu = entry.mtu,
          .is_internal = entry.is_loopback || entry.driver == "veth"};
}

// The passes over the interfaces, in the table's order.
enum class Pass { kLinkLocal, kV4, kV6, kLoopback, kOtherLinkLocal };
constexpr Pass kPasses[] = {Pass::kLinkLocal, Pass::kV4, Pass::kV6, Pass::kLoopback,
                            Pass::kOtherLinkLocal};

bool belongs(Pass pass, const os::Interface& entry, const wire::IpAddress& address) {
  if (entry.is_loopback) return pass == Pass::kLoopback;
  if (address.is_v4()) return pass == Pass::kV4;
  if (!address.is_link_local()) return pass == Pass::kV6;
  return pass == Pass::kLinkLocal || pass == Pass::kOtherLinkLocal;
}

}  // namespace

Result<std::vector<LocalGid>> make_gid_table(std::span<const os::Interface> interfaces,
                                             std::span<const wire::IpAddress> only) {
  std::vector<LocalGid> gids;
  for (const wire::IpAddress& address : only) {
    const auto owner = std::ranges::find_if(
        interfaces, [&](const os::Interface& entry) { return entry.owns(address); });
    if (owner == interfaces.end()) {
      return fail(ErrorCode::kNotFound,
                  "%s is not an address of this host; `ip address` shows them",
                  address.to_string().c_str());
    }
    gids.push_back(gid_of(*owner, address));
  }
  if (!only.empty()) return gids;

  for (const Pass pass : kPasses) {
    for (const os::Interface& entry : interfaces) {
      if (!entry.is_up) continue;
      for (const os::InterfaceAddress& item : entry.addresses) {
        const bool first_only = pass == Pass::kLinkLocal && !gids.empty();
        const bool known =
            std::ranges::find(gids, item.address, &LocalGid::address) != gids.end();
        if (first_only || known || !belongs(pass, entry, item.address)) continue;
        if (gids.size() < rdma::kMaxGids) gids.push_back(gid_of(entry, item.address));
      }
    }
  }
  if (gids.empty()) {
    return fail(ErrorCode::kNotFound,
                "no network interface is up; at least the loopback is needed (ip link set lo up)");
  }
  return gids;
}

}  // namespace isthmus::control
