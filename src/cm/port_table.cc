#include "cm/port_table.h"

#include <algorithm>

namespace isthmus::cm {
namespace {

bool covers(const PortClaim& wildcard, Family family) {
  return wildcard.family == family ||
         (wildcard.family == Family::kV6 && !wildcard.family_only);
}

}  // namespace

bool PortTable::overlap(const PortClaim& a, const PortClaim& b) {
  if (a.wildcard && b.wildcard) return covers(a, b.family) || covers(b, a.family);
  if (a.wildcard) return covers(a, b.family);
  if (b.wildcard) return covers(b, a.family);
  return a.ip == b.ip;
}

Result<std::uint16_t> PortTable::bind(wire::PortSpace space, std::uint16_t port,
                                      const PortClaim& claim) {
  if (port == 0) {
    static constexpr std::uint32_t kPorts = kLastEphemeral - kFirstEphemeral + 1;
    const auto start = static_cast<std::uint32_t>(random_() % kPorts);
    for (std::uint32_t i = 0; i < kPorts; ++i) {
      const auto candidate = static_cast<std::uint16_t>(kFirstEphemeral + (start + i) % kPorts);
      if (claims_.contains(Key{space, candidate})) continue;
      claims_[Key{space, candidate}].push_back(claim);
      return candidate;
    }
    return fail(ErrorCode::kAddressInUse, "bind: all %u ports for port 0 are taken", kPorts);
  }
  std::vector<PortClaim>& holders = claims_[Key{space, port}];
  for (const PortClaim& other : holders) {
    const bool shared = claim.reuse_address && other.reuse_address && !other.listening;
    if (!shared && overlap(claim, other)) {
      return fail(ErrorCode::kAddressInUse, "bind: port %u is taken", port);
    }
  }
  holders.push_back(claim);
  return port;
}

Result<void> PortTable::listen(wire::PortSpace space, std::uint16_t port, std::uint32_t holder) {
  const auto place = claims_.find(Key{space, port});
  if (place == claims_.end()) return fail(ErrorCode::kInvalid, "listen: not bound");
  std::vector<PortClaim>& holders = place->second;
  const auto own = std::ranges::find(holders, holder, &PortClaim::holder);
  if (own == holders.end()) return fail(ErrorCode::kInvalid, "listen: not bound");
  for (const PortClaim& other : holders) {
    if (other.holder != holder && overlap(*own, other)) {
      return fail(ErrorCode::kAddressInUse, "listen: port %u is shared with another", port);
    }
  }
  own->listening = true;
  return {};
}

void PortTable::release(wire::PortSpace space, std::uint16_t port, std::uint32_t holder) {
  const auto place = claims_.find(Key{space, port});
  if (place == claims_.end()) return;
  std::erase_if(place->second, [&](const PortClaim& c) { return c.holder == holder; });
  if (place->second.empty()) claims_.erase(place);
}

std::uint32_t PortTable::listener_for(wire::PortSpace space, std::uint16_t port,
                                      const wire::IpAddress& ip) const {
  const auto place = claims_.find(Key{space, port});
  if (place == claims_.end()) return 0;
  const Family family = ip.is_v4() ? Family::kV4 : Family::kV6;
  std::uint32_t wildcard = 0;
  for (const PortClaim& claim : place->second) {
    if (!claim.listening) continue;
    if (!claim.wildcard && claim.ip == ip) return claim.holder;
    if (claim.wildcard && covers(claim, family)) wildcard = claim.holder;
  }
  return wildcard;
}

}  // namespace isthmus::cm
