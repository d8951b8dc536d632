#include "apps/isthmusd_report.h"

#include <infiniband/verbs.h>

#include "control/window_view.h"

namespace isthmus::apps {
namespace {

std::string type_name(std::uint32_t type) {
  switch (type) {
    case IBV_QPT_RC: return "RC";
    case IBV_QPT_UC: return "UC";
    case IBV_QPT_UD: return "UD";
    case IBV_QPT_XRC_SEND:
    case IBV_QPT_XRC_RECV: return "XRC";
    default: return "?";
  }
}

std::string state_name(std::uint32_t state) {
  switch (state) {
    case IBV_QPS_RESET: return "RESET";
    case IBV_QPS_INIT: return "INIT";
    case IBV_QPS_RTR: return "RTR";
    case IBV_QPS_RTS: return "RTS";
    case IBV_QPS_SQD: return "SQD";
    case IBV_QPS_SQE: return "SQE";
    case IBV_QPS_ERR: return "ERR";
    default: return "?";
  }
}

control::TrafficReport report_of(const control::TrafficView& view) {
  return {.messages_sent = view.messages_sent,
          .messages_received = view.messages_received,
          .bytes_sent = view.bytes_sent,
          .bytes_received = view.bytes_received,
          .packets_sent = view.packets_sent,
          .packets_received = view.packets_received,
          .retries = view.retries,
          .drops = view.drops};
}

control::QueuePairReport report_of(const control::QueuePairView& view) {
  const auto gid = [](const wire::IpAddress& address) {
    return address.is_zero() ? std::string() : address.to_string();
  };
  return {.qpn = view.qpn,
          .type = type_name(view.type),
          .state = state_name(view.state),
          .local_gid = gid(view.local_gid),
          .remote_gid = gid(view.remote_gid),
          .dest_qpn = view.dest_qpn,
          .channel = view.channel == rdma::ChannelKind::kMemory ? "memory" : "roce",
          .access = view.access,
          .traffic = report_of(view.traffic)};
}

}  // namespace

control::FunctionReport report_of(const control::Function& function,
                                  const control::StatusDetail& detail) {
  const rdma::WindowHeader& header = function.window().header;
  constexpr auto kRelaxed = std::memory_order_relaxed;  // Counters: nothing is ordered by them.
  control::FunctionReport report{
      .index = function.index,
      .generation = function.generation,
      .process_id = function.owner.process_id,
      .program = function.program,
      .label = function.label,
      .queue_pair_count = header.queue_pair_count.load(kRelaxed),
      .memory_region_count = header.memory_region_count.load(kRelaxed),
      .completion_queue_count = header.completion_queue_count.load(kRelaxed),
      .registered_bytes = header.registered_bytes.load(kRelaxed),
      .traffic = report_of(control::traffic_of(header.counters))};
  if (detail.queue_pairs) {
    for (const auto& view : control::queue_pairs_of(function.window(), function.index)) {
      report.queue_pairs.push_back(report_of(view));
    }
  }
  if (detail.memory_regions) {
    for (const auto& view : control::memory_regions_of(function.window())) {
      report.memory_regions.push_back({.key = view.key,
                                       .iova = view.iova,
                                       .length = view.length,
                                       .access = view.access,
                                       .window = view.is_window});
    }
  }
  return report;
}

std::vector<control::CounterReport> report_of(const control::FunctionCounters& counters) {
  return {{"functions_attached", counters.attached},
          {"functions_detached", counters.detached},
          {"functions_reattached", counters.reattached},
          {"functions_refused", counters.refused},
          {"connections_admitted", counters.admitted},
          {"connections_denied", counters.denied},
          {"connections_with_neighbours", counters.neighbours},
          {"queue_pairs_revoked", counters.revoked},
          {"queue_pairs_restricted", counters.restricted},
          {"events_not_acknowledged", counters.not_acknowledged}};
}

}  // namespace isthmus::apps
