#include "control/window_view.h"

#include <infiniband/verbs.h>

#include "rdma/key_table.h"

namespace isthmus::control {
namespace {

// Counters alone: nothing is ordered by them.
constexpr auto kRelaxed = std::memory_order_relaxed;

}  // namespace

TrafficView traffic_of(const rdma::TrafficCounters& counters) {
  return {.messages_sent = counters.messages_sent.load(kRelaxed),
          .messages_received = counters.messages_received.load(kRelaxed),
          .bytes_sent = counters.bytes_sent.load(kRelaxed),
          .bytes_received = counters.bytes_received.load(kRelaxed),
          .packets_sent = counters.packets_sent.load(kRelaxed),
          .packets_received = counters.packets_received.load(kRelaxed),
          .retries = counters.retries.load(kRelaxed),
          .drops = counters.drops.load(kRelaxed)};
}

std::vector<QueuePairView> queue_pairs_of(const rdma::Window& window, std::uint32_t function) {
  std::vector<QueuePairView> views;
  // Stops at the last one: looking at a slot that was never used would give it memory.
  const std::uint32_t count = window.header.queue_pair_count.load(kRelaxed);
  for (const rdma::QpSlot& slot : window.queue_pairs) {
    if (views.size() >= count) break;
    const std::uint32_t qpn = slot.qpn.load(std::memory_order_acquire);
    if (qpn == 0 || rdma::function_of(qpn) != function) continue;
    views.push_back({.qpn = qpn,
                     .state = slot.state.load(kRelaxed),
                     .type = slot.type,
                     .access = slot.access,
                     .dest_qpn = slot.dest_qpn,
                     .local_gid = wire::IpAddress{slot.local_gid},
                     .remote_gid = wire::IpAddress{slot.remote_gid},
                     .channel = slot.channel.load(kRelaxed) ==
                                        static_cast<std::uint32_t>(rdma::ChannelKind::kMemory)
                                    ? rdma::ChannelKind::kMemory
                                    : rdma::ChannelKind::kRoce,
                     .traffic = traffic_of(slot.counters)});
  }
  return views;
}

std::vector<MemoryRegionView> memory_regions_of(const rdma::Window& window) {
  std::vector<MemoryRegionView> views;
  // Each has one key; a sum that wraps is nonsense of the owner's, and ends the loop early.
  const std::uint32_t count = window.header.memory_region_count.load(kRelaxed) +
                              window.header.memory_window_count.load(kRelaxed);
  for (const rdma::KeySlot& slot : window.keys) {
    if (views.size() >= count) break;  // As above.
    const std::uint32_t changes = slot.changes.load(std::memory_order_acquire);
    const std::uint32_t key = slot.key.load(std::memory_order_acquire);
    if (key == 0) continue;
    const MemoryRegionView view{.key = key,
                                .access = slot.access,
                                .iova = slot.iova,
                                .length = slot.length,
                                .is_window = (slot.flags & rdma::kKeyIsWindow) != 0};
    // No change began meanwhile: what was read belongs together.
    if (slot.changes == changes) views.push_back(view);
  }
  return views;
}

}  // namespace isthmus::control
