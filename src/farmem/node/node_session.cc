#include "farmem/node/node_session.h"

#include <cerrno>

namespace isthmus::farmem {

Result<std::unique_ptr<NodeSession>> NodeSession::create(SlabPool& pool, ibv_context& context,
                                                         ibv_cq& cq, const SessionToken& token,
                                                         std::string label) {
  std::unique_ptr<NodeSession> session{
      new NodeSession(pool, context, cq, token, std::move(label))};
  session->pd_.reset(ibv_alloc_pd(&context));
  if (!session->pd_) return fail_errno(errno, "create a protection domain");
  return session;
}

NodeSession::~NodeSession() {
  channels_.clear();
  while (!slabs_.empty()) {
    const std::uint32_t slab = slabs_.begin()->first;
    slabs_.erase(slabs_.begin());
    pool_.give_back(slab);
  }
}

Result<SlabGrant> NodeSession::take_slab() {
  const auto slab = pool_.take();
  if (!slab) return fail(ErrorCode::kNoMemory, "no slab is free");
  const auto memory = pool_.memory_of(*slab);
  MrOwner region{ibv_reg_mr(pd_.get(), memory.data(), memory.size(),
                            IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
                                IBV_ACCESS_REMOTE_WRITE)};
  if (!region) {
    const int error = errno;
    pool_.give_back(*slab);
    return fail_errno(error, "register a slab");
  }
  const SlabGrant grant{.address = reinterpret_cast<std::uintptr_t>(memory.data()),
                        .rkey = region->rkey,
                        .slab = *slab};
  slabs_.emplace(*slab, std::move(region));
  return grant;
}

Result<void> NodeSession::release_slab(std::uint32_t slab) {
  const auto found = slabs_.find(slab);
  if (found == slabs_.end()) {
    return fail(ErrorCode::kNotFound, "slab %u is none of this session", slab);
  }
  slabs_.erase(found);
  pool_.give_back(slab);
  return {};
}

Result<ChannelEnd> NodeSession::open_channel(const Gid& local_gid, const ChannelEnd& theirs) {
  if (channels_.size() >= kMostChannelsOfSession) {
    return fail(ErrorCode::kNoMemory, "a session has at most %zu channels",
                kMostChannelsOfSession);
  }
  const LinkPlace place = ISTHMUS_TRY(find_link_place(context_, local_gid));
  QpOwner qp = ISTHMUS_TRY(create_data_qp(*pd_, cq_, 1));
  const std::uint32_t psn = draw_psn();
  ISTHMUS_TRY_VOID(join_data_qp(*qp, place, psn, theirs));
  const ChannelEnd ours = describe_end(*qp, place, psn);
  channels_.emplace(ours.qpn, std::move(qp));
  return ours;
}

Result<void> NodeSession::close_channel(std::uint32_t qpn) {
  if (channels_.erase(qpn) == 0) {
    return fail(ErrorCode::kNotFound, "queue pair %#x is none of this session", qpn);
  }
  return {};
}

}  // namespace isthmus::farmem
