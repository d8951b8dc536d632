// Joining and leaving multicast groups.

#include <algorithm>

#include "rdmacm/endpoint.h"
#include "rdmacm/failure.h"
#include "rdmacm/outcome.h"
#include "rdmacm/session.h"

namespace isthmus::rdmacm {

Result<void> Session::join(Identifier& identifier, std::unique_ptr<Membership> membership) {
  Membership* const joined = membership.get();
  joined->identifier = &identifier;
  {
    std::lock_guard lock(registry_mutex_);
    joined->cookie = next_cookie_++;
    memberships_[joined->cookie] = joined;
    identifier.memberships.push_back(std::move(membership));
  }
  attach::CmJoinMulticast request;
  request.cookie = joined->cookie;
  request.group = joined->group;
  request.join_flags = joined->join_flags;
  const auto reply =
      call<attach::CmHandleReply>(identifier, attach::CmCommand::kJoinMulticast, request);
  if (!reply) {
    std::lock_guard lock(registry_mutex_);
    memberships_.erase(joined->cookie);
    std::erase_if(identifier.memberships, [&](const auto& m) { return m.get() == joined; });
    return std::unexpected(reply.error());
  }
  joined->handle = reply->handle;
  return complete(identifier);
}

Result<void> Session::leave(Identifier& identifier, const attach::CmAddress& group) {
  std::unique_ptr<Membership> left;
  {
    std::lock_guard lock(registry_mutex_);
    auto& all = identifier.memberships;
    const auto found =
        std::ranges::find_if(all, [&](const auto& m) { return m->group == group; });
    if (found == all.end()) return fail_with(EADDRNOTAVAIL, "leave a group");
    left = std::move(*found);
    all.erase(found);
    memberships_.erase(left->cookie);
  }
  if (left->attached && identifier.qp != nullptr) {
    ibv_detach_mcast(identifier.qp, &left->mgid, 0);
  }
  attach::CmLeaveMulticast request;
  request.multicast = left->handle;
  const auto reply =
      call<attach::CmCountReply>(identifier, attach::CmCommand::kLeaveMulticast, request);
  Channel::of(identifier.channel).extract([&](const QueuedEvent& event) {
    return event.wire.multicast != 0 && event.wire.cookie == left->cookie;
  });
  {
    std::unique_lock lock(registry_mutex_);
    acknowledged_.wait(lock, [&] { return left->events_out == 0; });
  }
  if (!reply) return std::unexpected(reply.error());
  return {};
}

namespace {

int join(rdma_cm_id* id, const sockaddr* address, std::uint32_t flags, void* context) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  const auto group = address_of(address);
  if (!group || group->family == 0) return failed(EINVAL);
  auto membership = std::make_unique<Membership>();
  membership->context = context;
  membership->group = *group;
  membership->join_flags = flags;
  return outcome((*identifier)->session->join(**identifier, std::move(membership)));
}

}  // namespace
}  // namespace isthmus::rdmacm

using namespace isthmus::rdmacm;

int rdma_join_multicast(rdma_cm_id* id, sockaddr* address, void* context) {
  return join(id, address, RDMA_MC_JOIN_FLAG_FULLMEMBER, context);
}

int rdma_join_multicast_ex(rdma_cm_id* id, rdma_cm_join_mc_attr_ex* attributes, void* context) {
  if (attributes == nullptr) return failed(EINVAL);
  if (attributes->comp_mask >= RDMA_CM_JOIN_MC_ATTR_RESERVED) return failed(ENOTSUP);
  constexpr std::uint32_t kBoth =
      RDMA_CM_JOIN_MC_ATTR_ADDRESS | RDMA_CM_JOIN_MC_ATTR_JOIN_FLAGS;
  if ((attributes->comp_mask & kBoth) != kBoth ||
      attributes->join_flags >= RDMA_MC_JOIN_FLAG_RESERVED) {
    return failed(EINVAL);
  }
  return join(id, attributes->addr, attributes->join_flags, context);
}

int rdma_leave_multicast(rdma_cm_id* id, sockaddr* address) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  const auto group = address_of(address);
  if (!group || group->family == 0) return failed(EINVAL);
  return outcome((*identifier)->session->leave(**identifier, *group));
}
