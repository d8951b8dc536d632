#include "control/cm_addresses.h"

#include <algorithm>

namespace isthmus::control {
namespace {

constexpr std::uint32_t kHeaderBytes = 80;
constexpr std::uint8_t kMtu256 = 1;
constexpr std::uint8_t kMtu4096 = 5;

}  // namespace

std::uint8_t path_mtu_of(std::uint32_t interface_mtu_bytes) {
  const std::uint32_t room =
      interface_mtu_bytes > kHeaderBytes ? interface_mtu_bytes - kHeaderBytes : 0;
  std::uint8_t mtu = kMtu256;
  while (mtu < kMtu4096 && room >= (256u << mtu)) ++mtu;
  return mtu;
}

std::optional<cm::LocalAddress> CmAddresses::find(const wire::IpAddress& ip) const {
  const auto found = std::ranges::find(gids_, ip, &LocalGid::address);
  if (found == gids_.end()) return std::nullopt;
  return cm::LocalAddress{.ip = ip,
                          .gid_index = static_cast<std::uint8_t>(found - gids_.begin()),
                          .mtu = path_mtu_of(found->mtu)};
}

Result<cm::LocalAddress> CmAddresses::source_for(const wire::IpAddress& destination) const {
  if (const auto own = find(destination)) return *own;
  const Result<wire::IpAddress> chosen = route_(destination);
  if (chosen) {
    if (const auto own = find(*chosen)) return *own;
  } else if (!destination.is_multicast() && !destination.is_link_local()) {
    return std::unexpected(chosen.error());
  }
  const auto fits = [&](const LocalGid& gid) {
    return gid.address.is_v4() == destination.is_v4() &&
           gid.address.is_link_local() == destination.is_link_local() &&
           (destination.is_multicast() ||
            gid.address.is_loopback() == destination.is_loopback());
  };
  const auto found = std::ranges::find_if(gids_, fits);
  if (found != gids_.end()) return *find(found->address);
  return fail(ErrorCode::kUnreachable, "no address of this isthmusd leads to %s",
              destination.to_string().c_str());
}

}  // namespace isthmus::control
