// NodeSession: what a node has given to one program: slabs, and queue pairs to reach them.
//
// It has a protection domain of its own, so the keys of one session are of no use on the queue
// pairs of another. It lives as long as a control connection holds it, or the node waits for one.
//
// Threading: the node's thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "base/result.h"
#include "farmem/node/slab_pool.h"
#include "farmem/remote/data_link.h"
#include "farmem/remote/node_protocol.h"
#include "farmem/remote/verbs_objects.h"

namespace isthmus::farmem {

constexpr std::size_t kMostChannelsOfSession = 256;

class NodeSession {
 public:
  // `cq` takes completions that never come: data queue pairs only answer.
  static Result<std::unique_ptr<NodeSession>> create(SlabPool& pool, ibv_context& context,
                                                     ibv_cq& cq, const SessionToken& token,
                                                     std::string label);
  // Nobody reaches the slabs any more when they are given back.
  ~NodeSession();

  const SessionToken& token() const { return token_; }
  const std::string& label() const { return label_; }
  std::size_t slab_count() const { return slabs_.size(); }

  // Until then it waits for somebody to join it when its last connection has ended; 0: it does not.
  std::uint64_t heirs_until_ns() const { return heirs_until_ns_; }
  void expect_heirs_until(std::uint64_t ns) { heirs_until_ns_ = ns; }

  // kNoMemory: no slab is free.
  Result<SlabGrant> take_slab();
  // kNotFound: not one of this session.
  Result<void> release_slab(std::uint32_t slab);

  Result<ChannelEnd> open_channel(const Gid& local_gid, const ChannelEnd& theirs);
  Result<void> close_channel(std::uint32_t qpn);

 private:
  NodeSession(SlabPool& pool, ibv_context& context, ibv_cq& cq, const SessionToken& token,
              std::string label)
      : pool_(pool), context_(context), cq_(cq), token_(token), label_(std::move(label)) {}

  SlabPool& pool_;
  ibv_context& context_;
  ibv_cq& cq_;
  const SessionToken token_;
  const std::string label_;
  std::uint64_t heirs_until_ns_ = 0;
  PdOwner pd_;
  std::map<std::uint32_t, MrOwner> slabs_;
  std::map<std::uint32_t, QpOwner> channels_;  // By QP number.
};

}  // namespace isthmus::farmem
