#include "apps/isthmus_status_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "apps/isthmus_table.h"

namespace isthmus::apps {
namespace {

using Align = Table::Align;
using control::FunctionReport;
using control::QueuePairReport;
using control::StatusReport;
using control::TrafficReport;

double per_second(std::uint64_t before, std::uint64_t now, std::uint64_t elapsed_ns) {
  if (elapsed_ns == 0 || now < before) return 0;  // Counters of another owner of the number.
  return static_cast<double>(now - before) * 1e9 / static_cast<double>(elapsed_ns);
}

const FunctionReport* find(const StatusReport* report, const FunctionReport& wanted) {
  if (report == nullptr) return nullptr;
  const auto found = std::ranges::find_if(report->functions, [&](const auto& function) {
    return function.index == wanted.index && function.generation == wanted.generation;
  });
  return found == report->functions.end() ? nullptr : &*found;
}

std::uint64_t elapsed(const StatusReport* before, const StatusReport& now) {
  return before != nullptr && now.taken_ns > before->taken_ns ? now.taken_ns - before->taken_ns : 0;
}

void add_to(TrafficReport& sum, const TrafficReport& more) {
  sum.messages_sent += more.messages_sent;
  sum.messages_received += more.messages_received;
  sum.bytes_sent += more.bytes_sent;
  sum.bytes_received += more.bytes_received;
  sum.packets_sent += more.packets_sent;
  sum.packets_received += more.packets_received;
  sum.retries += more.retries;
  sum.drops += more.drops;
}

void add_to(TrafficRate& sum, const TrafficRate& more) {
  sum.messages_sent += more.messages_sent;
  sum.messages_received += more.messages_received;
  sum.bytes_sent += more.bytes_sent;
  sum.bytes_received += more.bytes_received;
  sum.packets_sent += more.packets_sent;
  sum.packets_received += more.packets_received;
}

// The access flags of verbs.h that say something to a person, by bit.
constexpr std::array<std::pair<std::uint32_t, const char*>, 5> kAccessNames{{
    {1u << 0, "local-write"},
    {1u << 1, "write"},
    {1u << 2, "read"},
    {1u << 3, "atomic"},
    {1u << 4, "bind"},
}};

}  // namespace

TrafficRate rate_between(const TrafficReport& before, const TrafficReport& now,
                         std::uint64_t elapsed_ns) {
  const auto rate = [&](std::uint64_t TrafficReport::*field) {
    return per_second(before.*field, now.*field, elapsed_ns);
  };
  return {.messages_sent = rate(&TrafficReport::messages_sent),
          .messages_received = rate(&TrafficReport::messages_received),
          .bytes_sent = rate(&TrafficReport::bytes_sent),
          .bytes_received = rate(&TrafficReport::bytes_received),
          .packets_sent = rate(&TrafficReport::packets_sent),
          .packets_received = rate(&TrafficReport::packets_received)};
}

std::vector<InstanceSummary> summarize(const StatusReport& now, const StatusReport* before) {
  const std::uint64_t elapsed_ns = elapsed(before, now);
  std::vector<InstanceSummary> instances;
  for (const auto& function : now.functions) {
    auto found = std::ranges::find_if(instances, [&](const auto& instance) {
      return instance.process_id == function.process_id && instance.label == function.label;
    });
    if (found == instances.end()) {
      instances.push_back({.process_id = function.process_id,
                           .program = function.program,
                           .label = function.label});
      found = instances.end() - 1;
    }
    ++found->functions;
    found->queue_pairs += function.queue_pair_count;
    found->memory_regions += function.memory_region_count;
    found->completion_queues += function.completion_queue_count;
    found->registered_bytes += function.registered_bytes;
    add_to(found->traffic, function.traffic);
    if (const auto* earlier = find(before, function)) {
      add_to(found->rate, rate_between(earlier->traffic, function.traffic, elapsed_ns));
    }
  }
  return instances;
}

std::string access_text(std::uint32_t access) {
  std::string text;
  for (const auto& [bit, name] : kAccessNames) {
    if ((access & bit) != 0) text += std::string(text.empty() ? "" : " ") + name;
  }
  return text.empty() ? "-" : text;
}

std::string host_text(const StatusReport& status) {
  std::string addresses;
  for (const auto& address : status.addresses) {
    addresses += (addresses.empty() ? "" : " ") + address;
  }
  return fmt::format("host {}  {}\nisthmusd {}{}  pid {}  up {}  {}\n",
                     status.label.empty() ? "-" : status.label, addresses, status.version,
                     status.private_daemon ? " (private)" : "", status.process_id,
                     duration_text(status.taken_ns - status.started_ns), status.socket);
}

std::string instances_text(const std::vector<InstanceSummary>& instances) {
  if (instances.empty()) return "no program is attached\n";
  Table table{{{"INSTANCE"},
               {"PROGRAM"},
               {"PID", Align::kRight},
               {"QPS", Align::kRight},
               {"CQS", Align::kRight},
               {"MRS", Align::kRight},
               {"MEMORY", Align::kRight},
               {"TX", Align::kRight},
               {"RX", Align::kRight},
               {"TX MSG/S", Align::kRight},
               {"RX MSG/S", Align::kRight},
               {"RETRIES", Align::kRight},
               {"DROPS", Align::kRight}}};
  for (const auto& instance : instances) {
    table.add({instance.label.empty() ? "-" : instance.label, instance.program,
               std::to_string(instance.process_id), std::to_string(instance.queue_pairs),
               std::to_string(instance.completion_queues), std::to_string(instance.memory_regions),
               bytes_text(instance.registered_bytes), rate_text(instance.rate.bytes_sent),
               rate_text(instance.rate.bytes_received), count_text(instance.rate.messages_sent),
               count_text(instance.rate.messages_received),
               std::to_string(instance.traffic.retries), std::to_string(instance.traffic.drops)});
  }
  return table.text();
}

std::string queue_pairs_text(const StatusReport& now, const StatusReport* before) {
  Table table{{{"QPN", Align::kRight},
               {"PID", Align::kRight},
               {"TYPE"},
               {"STATE"},
               {"CHANNEL"},
               {"PEER"},
               {"PEER QPN", Align::kRight},
               {"PEER MAY"},
               {"TX MSGS", Align::kRight},
               {"RX MSGS", Align::kRight},
               {"TX", Align::kRight},
               {"RX", Align::kRight},
               {"RETRIES", Align::kRight}}};
  const std::uint64_t elapsed_ns = elapsed(before, now);
  for (const auto& function : now.functions) {
    const auto* earlier = find(before, function);
    for (const auto& qp : function.queue_pairs) {
      TrafficRate rate;
      if (earlier != nullptr) {
        const auto same = std::ranges::find(earlier->queue_pairs, qp.qpn, &QueuePairReport::qpn);
        if (same != earlier->queue_pairs.end()) {
          rate = rate_between(same->traffic, qp.traffic, elapsed_ns);
        }
      }
      const bool connected = qp.dest_qpn != 0;
      table.add({fmt::format("{:#08x}", qp.qpn), std::to_string(function.process_id), qp.type,
                 qp.state, connected ? qp.channel : "-", connected ? qp.remote_gid : "-",
                 connected ? fmt::format("{:#08x}", qp.dest_qpn) : "-", access_text(qp.access),
                 count_text(static_cast<double>(qp.traffic.messages_sent)),
                 count_text(static_cast<double>(qp.traffic.messages_received)),
                 rate_text(rate.bytes_sent), rate_text(rate.bytes_received),
                 std::to_string(qp.traffic.retries)});
    }
  }
  return table.empty() ? "no queue pairs\n" : table.text();
}

std::string memory_regions_text(const StatusReport& status) {
  Table table{{{"KEY", Align::kRight},
               {"PID", Align::kRight},
               {"KIND"},
               {"ADDRESS"},
               {"LENGTH", Align::kRight},
               {"ACCESS"}}};
  for (const auto& function : status.functions) {
    for (const auto& region : function.memory_regions) {
      table.add({fmt::format("{:#010x}", region.key), std::to_string(function.process_id),
                 region.window ? "window" : "region", fmt::format("{:#x}", region.iova),
                 bytes_text(region.length), access_text(region.access)});
    }
  }
  return table.empty() ? "no memory regions\n" : table.text();
}

std::string counters_text(const StatusReport& status) {
  std::string line;
  std::string text;
  for (const auto& counter : status.counters) {
    if (counter.value == 0) continue;
    const std::string word = fmt::format("{} {}", counter.name, counter.value);
    if (!line.empty() && line.size() + word.size() > 96) {
      text += line + "\n";
      line.clear();
    }
    line += (line.empty() ? "" : "  ") + word;
  }
  return line.empty() ? text : text + line + "\n";
}

}  // namespace isthmus::apps
