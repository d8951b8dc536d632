#include "control/place.h"

#include <algorithm>

#include "attach/attach_protocol.h"
#include "attach/node_guid.h"
#include "base/log.h"
#include "os/address_watch.h"
#include "os/interfaces.h"
#include "os/netns.h"
#include "os/process.h"
#include "os/udp_holders.h"
#include "rdma/limits.h"

namespace isthmus::control {
namespace {

const wire::IpAddress kAnyV4 = wire::IpAddress::from_v4(0);
const wire::IpAddress kAnyV6;

// Whose sockets have exactly this address: those would be, or are, in one group with ours.
std::vector<os::UdpHolder> holders_of(const wire::IpAddress& address, std::uint16_t port) {
  auto holders = os::list_udp_holders(port);
  if (!holders) return {};
  std::erase_if(*holders, [&](const os::UdpHolder& h) { return h.address != address; });
  return std::move(*holders);
}

std::unexpected<Error> explain_in_use(const wire::IpAddress& address, std::uint16_t port) {
  const std::string where = address.to_string() + " port " + std::to_string(port);
  constexpr const char* kElse = "or take an address of your own, such as --address 127.0.0.2";
  auto holders = os::list_udp_holders(port);
  for (const os::UdpHolder& holder : holders ? *holders : std::vector<os::UdpHolder>{}) {
    if (holder.is_kernel) {
      return fail(ErrorCode::kAddressInUse,
                  "UDP %s: the kernel's own soft-RoCE (rdma_rxe) has it; remove its link "
                  "(`rdma link delete`), %s",
                  where.c_str(), kElse);
    }
    if (holder.user_id != os::effective_user_id()) {
      return fail(ErrorCode::kAddressInUse,
                  "UDP %s: a program of user %u has it, probably an isthmusd; ask that user to "
                  "end it, %s",
                  where.c_str(), holder.user_id, kElse);
    }
  }
  return fail(ErrorCode::kAddressInUse,
              "UDP %s: another isthmusd of yours, or what a killed one left running, has it; use "
              "that one (ISTHMUS_SOCKET), end it, %s",
              where.c_str(), kElse);
}

}  // namespace

Result<std::unique_ptr<Place>> Place::open(const PlaceOptions& options, os::Fd network_namespace,
                                           std::vector<KeptGroup> kept) {
  std::unique_ptr<Place> place(new Place(options, std::move(network_namespace)));
  ISTHMUS_TRY_VOID(place->inside([&] { return place->open_here(std::move(kept)); }));
  return place;
}

Result<void> Place::inside(const std::function<Result<void>()>& action) const {
  if (!network_namespace_) return action();
  return os::run_in_network_namespace(network_namespace_, action);
}

Result<void> Place::open_here(std::vector<KeptGroup> kept) {
  const os::Fd own = network_namespace_ ? os::Fd{} : ISTHMUS_TRY(os::open_network_namespace(0));
  namespace_id_ =
      ISTHMUS_TRY(os::network_namespace_id(network_namespace_ ? network_namespace_ : own));
  address_watch_ = ISTHMUS_TRY(os::watch_addresses());
  gids_ = ISTHMUS_TRY(read_gids());
  std::vector<attach::GuidSource> sources;
  for (const LocalGid& gid : gids_) sources.push_back({.address = gid.address, .mac = gid.mac});
  node_guid_ = attach::node_guid_of(sources);

  if (options_.only.empty()) {
    ISTHMUS_TRY_VOID(open_group(kAnyV4, kept));
    const auto v6 = open_group(kAnyV6, kept);
    if (!v6 && v6.error().code == ErrorCode::kAddressInUse) return v6;
    if (!v6) ISTHMUS_LOG(kInfo, "without IPv6: %s", v6.error().message.c_str());
  }
  for (const wire::IpAddress& address : options_.only) {
    ISTHMUS_TRY_VOID(open_group(address, kept));
  }
  return {};
}

Result<void> Place::open_group(const wire::IpAddress& address, std::vector<KeptGroup>& kept) {
  const os::ReuseportGroupOptions group_options{.address = address,
                                                .port = options_.port,
                                                .max_members = rdma::kFunctionCount};
  if (groups_.size() == attach::kMaxUdpSockets) {
    return fail(ErrorCode::kInvalid, "%u addresses at most", attach::kMaxUdpSockets);
  }
  const auto mine = std::ranges::find(kept, address, &KeptGroup::address);
  if (mine != kept.end() && !mine->members.empty()) {
    groups_.push_back(
        ISTHMUS_TRY(os::ReuseportGroup::adopt(group_options, std::move(mine->members))));
    return {};
  }
  // A socket of this user with the same address does not keep us from binding: we would join its
  // group, at the end, and receive what is meant for others.
  if (!holders_of(address, options_.port).empty()) return explain_in_use(address, options_.port);
  auto group = os::ReuseportGroup::create(group_options);
  if (!group && group.error().code == ErrorCode::kAddressInUse) {
    return explain_in_use(address, options_.port);
  }
  if (!group) return std::unexpected(std::move(group.error()));
  // Somebody who did the same at the same time: both see two, and both step back.
  if (holders_of(address, options_.port).size() > 1) {
    return explain_in_use(address, options_.port);
  }
  groups_.push_back(std::move(*group));
  return {};
}

Result<std::vector<LocalGid>> Place::read_gids() const {
  const std::vector<os::Interface> interfaces = ISTHMUS_TRY(os::list_interfaces());
  return make_gid_table(interfaces, options_.only);
}

bool Place::has(const wire::IpAddress& address) const {
  return std::ranges::find(gids_, address, &LocalGid::address) != gids_.end();
}

Result<std::vector<os::Fd>> Place::sockets_of(std::uint32_t function) {
  std::vector<os::Fd> sockets;
  for (const auto& group : groups_) {
    ISTHMUS_TRY_VOID(inside([&] { return group->grow_to_include(function); }));
    group->drain_member(function);
    sockets.push_back(ISTHMUS_TRY(group->member(function).duplicate()));
  }
  return sockets;
}

Result<void> Place::steer_away(std::uint32_t function) {
  users_.erase(function);
  choose_coalescing();
  for (const auto& group : groups_) ISTHMUS_TRY_VOID(group->steer_away(function));
  return {};
}

Result<void> Place::steer_back(std::uint32_t function) {
  users_.insert(function);
  for (const auto& group : groups_) os::set_coalescing(group->member(function), coalescing_);
  choose_coalescing();
  for (const auto& group : groups_) ISTHMUS_TRY_VOID(group->steer_back(function));
  return {};
}

void Place::choose_coalescing() {
  const bool internal = std::ranges::all_of(gids_, &LocalGid::is_internal);
  const auto wanted =
      internal || users_.size() <= 1 ? os::Coalescing::kOn : os::Coalescing::kOff;
  if (wanted == coalescing_) return;
  coalescing_ = wanted;
  for (const auto& group : groups_) {
    for (const std::uint32_t function : users_) {
      os::set_coalescing(group->member(function), wanted);
    }
  }
}

bool Place::reload_gids() {
  os::drain_address_watch(address_watch_);
  std::vector<LocalGid> fresh;
  const auto read = inside([&]() -> Result<void> {
    fresh = ISTHMUS_TRY(read_gids());
    return {};
  });
  // Without the address it was told to use there is nothing better than the table as it was.
  if (!read || fresh == gids_) return false;
  gids_ = std::move(fresh);
  choose_coalescing();
  return true;
}

}  // namespace isthmus::control
