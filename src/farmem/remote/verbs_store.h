// VerbsStore: slots in the memory of memory nodes, over the verbs.
//
// All memory is reserved when the store is made, spread over the nodes by what they have free, on
// one node or on two. A keeper thread tells the nodes that we are alive, hears when one ends, and
// makes the channels give it up. A node that failed is not asked again; the store goes on as long
// as each slot has a copy. With two copies it heals: what was on the node is copied to another one
// of those that were named, if one has room.
//
// A child of fork() joins its parent's sessions at the nodes: the same slabs, in a map of its own,
// healed onto spare slabs of its own.
//
// Threading: any thread. The keeper runs with all signals blocked.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.h"
#include "farmem/remote/node_connection.h"
#include "farmem/remote/slab_map.h"
#include "farmem/remote/verbs_channel.h"
#include "farmem/remote/verbs_objects.h"
#include "farmem/store.h"
#include "os/epoll.h"

namespace isthmus::farmem {

struct VerbsStoreOptions {
  std::vector<NodeAddress> nodes;  // 1 to kMostNodes.
  std::uint64_t bytes = 0;         // Rounded up to whole slabs.
  std::uint32_t replicas = 1;      // 1 or 2: nodes that have each page.
  std::string label;               // For the nodes' operators.
};

class VerbsStore final : public Store {
 public:
  // Nodes that do not answer are left out, with a warning. kNoMemory: those that do have not enough
  // room, or are too few for the copies.
  static Result<std::unique_ptr<VerbsStore>> connect(const VerbsStoreOptions& options);
  ~VerbsStore() override;  // After all channels.

  std::uint32_t slot_count() const override { return map_->slot_count(); }
  std::uint32_t slots_of_slab() const override { return map_->slots_of_slab(); }
  Result<std::unique_ptr<StoreChannel>> open_channel(std::uint32_t frames) override;
  std::uint64_t expect_child() override;
  void expect_nobody() override;
  Result<std::unique_ptr<Store>> join_in_child() override;

  // For a person: which nodes are gone, and why; empty: none.
  std::string loss() const;

 private:
  struct Node {
    std::unique_ptr<NodeConnection> connection;  // None: gone before a child could join it.
    LinkPlace place;
    std::vector<SlabGrant> grants;
    std::uint32_t room = 0;     // Slabs that it can give, with those that it has given.
    bool abandoned = false;     // By the keeper, which has told the channels.
  };

  VerbsStore() = default;
  Result<void> meet_nodes(const VerbsStoreOptions& options);
  Result<void> reserve(const VerbsStoreOptions& options);
  void ask_node(Node& node, std::uint32_t slabs);
  Result<std::unique_ptr<VerbsChannel>> make_channel(std::uint32_t frames);
  std::optional<SlabCopy> reserve_spare(std::uint32_t other);
  void join_nodes(const VerbsStore& parent);
  void tell_of_heirs(Heirs heirs);
  Result<void> make_map(std::span<const SlabNodes> placed, std::uint32_t replicas);
  Result<void> start_keeper();
  Result<void> join_channel(VerbsChannel& channel, std::uint32_t node_index);
  void forget_channel(VerbsChannel& channel);
  void keep();
  bool look_at_nodes();  // Whether another one is gone.

  ContextOwner context_;
  PdOwner pd_;
  std::vector<Node> nodes_;
  std::uint64_t slab_bytes_ = 0;
  std::uint32_t lease_ms_ = 0;
  std::string label_;
  std::atomic<std::uint64_t> expected_ns_{0};  // When the nodes last heard of a child; 0: never.
  std::unique_ptr<SlabMap> map_;

  mutable std::mutex mutex_;  // Of what follows, until the blank line.
  std::vector<VerbsChannel*> channels_;
  std::string loss_;

  std::unique_ptr<os::Epoll> epoll_;
  std::atomic<bool> stopping_{false};
  std::thread keeper_;
};

}  // namespace isthmus::farmem
