#include "farmem/remote/verbs_store.h"

#include <algorithm>
#include <cerrno>

#include "base/assert.h"
#include "base/log.h"
#include "farmem/remote/healer.h"
#include "os/clock.h"
#include "os/event_fd.h"
#include "os/signal_block.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint64_t kAlarm = UINT64_MAX;  // Tag; those of nodes are their indexes.
constexpr std::uint32_t kBeatsOfLease = 4;
// A child joins within a quarter of a lease. The nodes wait for one lease after the last word of a
// fork, and have it anew when half of that is over.
constexpr std::uint64_t kJoinsOfLease = 4;
constexpr std::uint64_t kHealAgainNs = 2 * os::kNsPerSecond;  // When no node had room.
constexpr std::uint64_t kMostSlots = UINT32_MAX;  // As SlotIndex counts, less one that means none.

std::uint32_t slabs_for(std::uint64_t bytes, std::uint64_t slab_bytes) {
  return static_cast<std::uint32_t>((bytes + slab_bytes - 1) / slab_bytes);
}

Result<void> check(const VerbsStoreOptions& options) {
  if (options.nodes.empty() || options.nodes.size() > kMostNodes) {
    return fail(ErrorCode::kInvalid, "%zu memory nodes; name 1 to %u", options.nodes.size(),
                kMostNodes);
  }
  if (options.replicas < 1 || options.replicas > kMostReplicas) {
    return fail(ErrorCode::kInvalid, "%u copies of each page; there can be 1 or %u",
                options.replicas, kMostReplicas);
  }
  if (options.bytes == 0 || options.bytes / kSlotBytes >= kMostSlots) {
    return fail(ErrorCode::kInvalid, "%llu bytes of far memory; there can be 1 to 16 TiB",
                static_cast<unsigned long long>(options.bytes));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<VerbsStore>> VerbsStore::connect(const VerbsStoreOptions& options) {
  ISTHMUS_TRY_VOID(check(options));
  std::unique_ptr<VerbsStore> store{new VerbsStore()};
  store->context_ = ISTHMUS_TRY(open_data_context());
  store->pd_.reset(ibv_alloc_pd(store->context_.get()));
  if (!store->pd_) return fail_errno(errno, "create a protection domain");
  store->label_ = options.label;
  ISTHMUS_TRY_VOID(store->meet_nodes(options));
  ISTHMUS_TRY_VOID(store->reserve(options));
  ISTHMUS_TRY_VOID(store->start_keeper());
  return store;
}

VerbsStore::~VerbsStore() {
  if (!keeper_.joinable()) return;
  stopping_ = true;
  os::signal(map_->alarm_fd());
  keeper_.join();
  ISTHMUS_ASSERT(channels_.empty());
}

Result<void> VerbsStore::meet_nodes(const VerbsStoreOptions& options) {
  Error last{.code = ErrorCode::kUnreachable, .message = "no memory node"};
  for (const NodeAddress& address : options.nodes) {
    auto connection =
        NodeConnection::connect({.address = address, .label = options.label, .token = {}});
    if (!connection) {
      last = connection.error();
      if (options.nodes.size() > 1) ISTHMUS_LOG(kWarning, "%s", last.message.c_str());
      continue;
    }
    const Welcome& welcome = (*connection)->welcome();
    if (slab_bytes_ != 0 && welcome.slab_bytes != slab_bytes_) {
      return fail(ErrorCode::kInvalid,
                  "memory nodes %s and %s have slabs of different sizes; use nodes of one kind",
                  nodes_.front().connection->name().c_str(), (*connection)->name().c_str());
    }
    slab_bytes_ = welcome.slab_bytes;
    lease_ms_ = lease_ms_ == 0 ? welcome.lease_ms : std::min(lease_ms_, welcome.lease_ms);
    const auto place = find_link_place(*context_, (*connection)->local_gid());
    if (!place) return std::unexpected(place.error());
    const std::uint64_t room = welcome.free_bytes / welcome.slab_bytes;
    nodes_.push_back({.connection = std::move(*connection),
                      .place = *place,
                      .grants = {},
                      .room = static_cast<std::uint32_t>(std::min<std::uint64_t>(room, kMostSlots)),
                      .abandoned = false});
  }
  if (nodes_.empty()) return std::unexpected(last);
  return {};
}

// Others reserve at the same time, so a node may give less than it promised: then what is missing
// is looked for again. Each round either finds all of it or takes room off a node.
Result<void> VerbsStore::reserve(const VerbsStoreOptions& options) {
  const std::uint32_t slabs = slabs_for(options.bytes, slab_bytes_);
  while (true) {
    std::vector<std::uint32_t> room;
    std::uint64_t sum = 0;
    for (const Node& node : nodes_) {
      room.push_back(node.connection->is_closed() ? 0 : node.room);
      sum += room.back();
    }
    const auto placed = place_slabs(room, slabs, options.replicas);
    if (!placed) {
      return fail(ErrorCode::kNoMemory,
                  "%zu memory nodes have %llu MiB free together; %u copies of %llu MiB do not fit; "
                  "ask for less, or add a node (isthmus memory serve)",
                  nodes_.size(), static_cast<unsigned long long>(sum * slab_bytes_ >> 20),
                  options.replicas,
                  static_cast<unsigned long long>(slabs * slab_bytes_ >> 20));
    }
    std::vector<std::uint32_t> wanted(nodes_.size());
    for (const SlabNodes& of_slab : *placed) {
      for (std::uint32_t copy = 0; copy < options.replicas; ++copy) ++wanted[of_slab[copy]];
    }
    bool all = true;
    for (std::size_t i = 0; i < nodes_.size(); ++i) {
      ask_node(nodes_[i], wanted[i]);
      all = all && nodes_[i].grants.size() >= wanted[i];
    }
    if (all) return make_map(*placed, options.replicas);
  }
}

// Until it has given `slabs`, or has no more: then its room is what it has given.
void VerbsStore::ask_node(Node& node, std::uint32_t slabs) {
  while (node.grants.size() < slabs) {
    const auto missing = static_cast<std::uint32_t>(slabs - node.grants.size());
    const auto granted = node.connection->reserve(std::min(missing, kMostSlabsOfMessage));
    if (!granted || granted->count == 0) {
      if (!granted) ISTHMUS_LOG(kInfo, "%s", granted.error().message.c_str());
      node.room = static_cast<std::uint32_t>(node.grants.size());
      return;
    }
    node.grants.insert(node.grants.end(), granted->slabs.begin(),
                       granted->slabs.begin() + granted->count);
  }
  // More than its share, from an earlier round.
  while (node.grants.size() > slabs) {
    // A node that is gone by now has forgotten it anyway.
    const auto released = node.connection->release(node.grants.back().slab);
    if (!released) ISTHMUS_LOG(kInfo, "%s", released.error().message.c_str());
    node.grants.pop_back();
  }
}

Result<void> VerbsStore::make_map(std::span<const SlabNodes> placed, std::uint32_t replicas) {
  std::vector<SlabCopies> slabs;
  std::vector<std::size_t> used(nodes_.size());
  for (const SlabNodes& of_slab : placed) {
    SlabCopies copies{};
    for (std::uint32_t copy = 0; copy < replicas; ++copy) {
      const std::uint32_t node = of_slab[copy];
      const SlabGrant& grant = nodes_[node].grants[used[node]++];
      copies[copy] = {.address = grant.address, .rkey = grant.rkey, .node = node};
    }
    slabs.push_back(copies);
  }
  map_ = std::make_unique<SlabMap>(static_cast<std::uint32_t>(slab_bytes_ / kSlotBytes), replicas,
                                   slabs, ISTHMUS_TRY(os::create_event_fd()));
  return {};
}

Result<void> VerbsStore::start_keeper() {
  epoll_ = ISTHMUS_TRY(os::Epoll::create());
  ISTHMUS_TRY_VOID(epoll_->add(map_->alarm_fd(), kAlarm));
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    if (nodes_[i].abandoned) continue;
    ISTHMUS_TRY_VOID(epoll_->add(nodes_[i].connection->event_fd(), i));
  }
  const os::SignalBlock block;  // A thread starts with the signal mask of its parent.
  keeper_ = std::thread([this] { keep(); });
  return {};
}

Result<std::unique_ptr<StoreChannel>> VerbsStore::open_channel(std::uint32_t frames) {
  return ISTHMUS_TRY(make_channel(frames));
}

Result<std::unique_ptr<VerbsChannel>> VerbsStore::make_channel(std::uint32_t frames) {
  const auto count = static_cast<std::uint32_t>(nodes_.size());
  auto channel = ISTHMUS_TRY(VerbsChannel::create(*map_, *context_, *pd_, count, frames));
  for (std::uint32_t i = 0; i < count; ++i) {
    if (map_->is_gone(i)) continue;
    const auto joined = join_channel(*channel, i);
    if (joined) continue;
    const ErrorCode code = joined.error().code;
    if (code != ErrorCode::kClosed && code != ErrorCode::kTimedOut) {
      return std::unexpected(joined.error());
    }
    map_->mark_gone(i);
  }
  channel->on_close([this](VerbsChannel& closed) { forget_channel(closed); });
  const std::lock_guard lock{mutex_};
  channels_.push_back(channel.get());
  // What the keeper gave up before it could know this channel.
  for (std::uint32_t i = 0; i < count; ++i) {
    if (map_->is_gone(i)) channel->fail_node(i);
  }
  return channel;
}

Result<void> VerbsStore::join_channel(VerbsChannel& channel, std::uint32_t node_index) {
  const Node& node = nodes_[node_index];
  ibv_qp& qp = channel.queue_pair(node_index);
  const std::uint32_t psn = draw_psn();
  const ChannelEnd other =
      ISTHMUS_TRY(node.connection->open_channel(describe_end(qp, node.place, psn)));
  channel.set_node_qpn(node_index, other.qpn);
  return join_data_qp(qp, node.place, psn, other);
}

void VerbsStore::forget_channel(VerbsChannel& channel) {
  {
    const std::lock_guard lock{mutex_};
    std::erase(channels_, &channel);
  }
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
    if (map_->is_gone(i)) continue;
    // A node that is gone has forgotten it anyway.
    const auto closed = nodes_[i].connection->close_channel(channel.node_qpn(i));
    if (!closed) ISTHMUS_LOG(kInfo, "%s", closed.error().message.c_str());
  }
}

// The node with the most room left that it said it has.
std::optional<SlabCopy> VerbsStore::reserve_spare(std::uint32_t other) {
  while (true) {
    std::uint32_t best = other;
    std::size_t most = 0;
    for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
      const std::size_t used = nodes_[i].grants.size();
      const std::size_t left = nodes_[i].room > used ? nodes_[i].room - used : 0;
      if (i != other && !map_->is_gone(i) && left > most) {
        best = i;
        most = left;
      }
    }
    if (best == other) return std::nullopt;
    Node& node = nodes_[best];
    const auto granted = node.connection->reserve(1);
    if (!granted || granted->count == 0) {
      node.room = static_cast<std::uint32_t>(node.grants.size());
      continue;
    }
    const SlabGrant& grant = granted->slabs[0];
    node.grants.push_back(grant);
    return SlabCopy{.address = grant.address, .rkey = grant.rkey, .node = best};
  }
}

void VerbsStore::keep() {
  Healer healer{*map_, {.open_channel = [this] { return make_channel(kSlotsOfChunk); },
                        .reserve = [this](std::uint32_t other) { return reserve_spare(other); }}};
  std::uint64_t heal_ns = 0;  // When there may be something to heal: in a child, from the start.
  const std::uint64_t period_ns = lease_ms_ * os::kNsPerMs / kBeatsOfLease;
  std::uint64_t next_beat = os::now_ns() + period_ns;
  std::array<os::Readiness, kMostNodes + 1> ready;
  while (!stopping_) {
    const std::uint64_t now = os::now_ns();
    if (now >= next_beat) {
      for (Node& node : nodes_) {
        if (!node.abandoned) node.connection->beat();
      }
      next_beat = os::now_ns() + period_ns;
    }
    if (look_at_nodes()) heal_ns = now;
    if (now >= heal_ns) {
      const Healer::Verdict verdict = healer.step();
      if (verdict == Healer::Verdict::kNothing) heal_ns = UINT64_MAX;
      if (verdict == Healer::Verdict::kNoRoom) heal_ns = now + kHealAgainNs;
    }
    const std::uint64_t after = os::now_ns();
    const std::uint64_t next = std::min(next_beat, heal_ns);
    for (const auto& found : epoll_->wait(ready, next > after ? next - after : std::uint64_t{0})) {
      if (found.tag == kAlarm) {
        os::drain(map_->alarm_fd());
      } else {
        nodes_[found.tag].connection->look();
      }
    }
  }
}

bool VerbsStore::look_at_nodes() {
  bool found = false;
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
    Node& node = nodes_[i];
    if (node.abandoned) continue;
    const bool closed = node.connection->is_closed();
    if (closed) map_->mark_gone(i);
    if (!map_->is_gone(i)) continue;
    node.abandoned = true;
    found = true;
    epoll_->remove(node.connection->event_fd());
    const auto status = static_cast<ibv_wc_status>(map_->status_of_gone(i));
    std::string reason = closed ? node.connection->reason() : "it does not answer";
    if (!closed && status != IBV_WC_SUCCESS) {
      reason += std::string(", ") + ibv_wc_status_str(status);
    }
    const std::string story = "memory node " + node.connection->name() + " is gone: " + reason;
    ISTHMUS_LOG(kWarning, "%s", story.c_str());
    map_->note_told(i);
    const std::lock_guard lock{mutex_};
    loss_ += (loss_.empty() ? "" : "; ") + story;
    for (VerbsChannel* channel : channels_) channel->fail_node(i);
  }
  return found;
}

std::uint64_t VerbsStore::expect_child() {
  const std::uint64_t lease_ns = lease_ms_ * os::kNsPerMs;
  const std::uint64_t now = os::now_ns();
  const std::uint64_t last = expected_ns_;
  if (last == 0 || now - last > lease_ns / 2) {
    expected_ns_ = now;
    tell_of_heirs(Heirs::kExpected);
  }
  return lease_ns / kJoinsOfLease;
}

void VerbsStore::expect_nobody() {
  if (expected_ns_.exchange(0) != 0) tell_of_heirs(Heirs::kNone);
}

void VerbsStore::tell_of_heirs(Heirs heirs) {
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
    if (map_->is_gone(i) || nodes_[i].connection->is_closed()) continue;
    const auto told = nodes_[i].connection->tell_of_heirs(heirs);
    if (!told) ISTHMUS_LOG(kInfo, "%s", told.error().message.c_str());
  }
}

// The parent's keeper may have been anywhere at the fork: what it changes under locks, or without
// any, such as grants and the healer, is not looked at.
Result<std::unique_ptr<Store>> VerbsStore::join_in_child() {
  std::unique_ptr<VerbsStore> store{new VerbsStore()};
  store->context_ = ISTHMUS_TRY(open_data_context());
  store->pd_.reset(ibv_alloc_pd(store->context_.get()));
  if (!store->pd_) return fail_errno(errno, "create a protection domain");
  store->label_ = label_;
  store->slab_bytes_ = slab_bytes_;
  store->lease_ms_ = lease_ms_;
  store->expected_ns_ = 1;  // By the parent, some time ago.
  store->map_ = std::make_unique<SlabMap>(map_->slots_of_slab(), map_->replicas(),
                                          map_->slabs_for_child(),
                                          ISTHMUS_TRY(os::create_event_fd()));
  for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
    if (map_->is_gone(i)) store->map_->mark_gone(i);
  }
  store->join_nodes(*this);
  if (std::ranges::all_of(store->nodes_, &Node::abandoned)) {
    return fail(ErrorCode::kUnreachable, "no memory node lets it join");
  }
  ISTHMUS_TRY_VOID(store->start_keeper());
  return store;
}

void VerbsStore::join_nodes(const VerbsStore& parent) {
  for (const Node& of_parent : parent.nodes_) {
    const auto index = static_cast<std::uint32_t>(nodes_.size());
    Node& node = nodes_.emplace_back();
    node.abandoned = true;
    if (map_->is_gone(index)) continue;
    const NodeConnection& before = *of_parent.connection;
    auto connection = NodeConnection::connect({.address = before.address(),
                                               .label = label_,
                                               .token = before.welcome().token,
                                               .peer = &before.peer()});
    const Result<LinkPlace> place =
        connection ? find_link_place(*context_, (*connection)->local_gid())
                   : Result<LinkPlace>(std::unexpected(connection.error()));
    if (!place) {
      ISTHMUS_LOG(kWarning, "%s", place.error().message.c_str());
      map_->mark_gone(index);
      continue;
    }
    const Welcome& welcome = (*connection)->welcome();
    const std::uint64_t room = welcome.free_bytes / welcome.slab_bytes;
    node.place = *place;
    node.room = static_cast<std::uint32_t>(std::min<std::uint64_t>(room, kMostSlots));
    node.connection = std::move(*connection);
    node.abandoned = false;
  }
}

std::string VerbsStore::loss() const {
  const std::lock_guard lock{mutex_};
  return loss_;
}

}  // namespace isthmus::farmem
