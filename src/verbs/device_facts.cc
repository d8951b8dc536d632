#include "verbs/device_facts.h"

#include <net/if.h>

#include <algorithm>

namespace isthmus::verbs {
namespace {

// Small enough for every interface: a program takes the port's MTU for any of its paths. Loopback
// does not count where there is another.
ibv_mtu active_mtu_of(const std::vector<GidFact>& gids) {
  std::uint32_t smallest = UINT32_MAX;
  std::uint32_t of_loopback = UINT32_MAX;
  for (const GidFact& gid : gids) {
    std::uint32_t& mtu = gid.address.is_loopback() ? of_loopback : smallest;
    if (gid.is_used()) mtu = std::min(mtu, gid.mtu);
  }
  if (smallest == UINT32_MAX) smallest = of_loopback;
  return smallest == UINT32_MAX ? IBV_MTU_1024 : path_mtu_of(smallest);
}

}  // namespace

ibv_mtu path_mtu_of(std::uint32_t interface_mtu) {
  const std::uint32_t room =
      interface_mtu > kHeaderAllowanceBytes ? interface_mtu - kHeaderAllowanceBytes : 0;
  for (const ibv_mtu mtu : {IBV_MTU_4096, IBV_MTU_2048, IBV_MTU_1024, IBV_MTU_512}) {
    if (room >= 128u << mtu) return mtu;
  }
  return IBV_MTU_256;
}

DeviceFacts facts_of(std::uint64_t guid, const std::vector<attach::GidInfo>& gids) {
  DeviceFacts facts{.guid = guid};
  for (const attach::GidInfo& info : gids) {
    facts.gids.push_back({.address = info.gid,
                          .interface_name = info.interface_name,
                          .interface_index = if_nametoindex(info.interface_name.c_str()),
                          .mac = info.mac,
                          .mtu = info.mtu});
  }
  facts.active_mtu = active_mtu_of(facts.gids);
  return facts;
}

}  // namespace isthmus::verbs
