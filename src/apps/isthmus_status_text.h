// A status report as text: for `isthmus status` and `isthmus top`.
#pragma once

#include <string>
#include <vector>

#include "control/grpc/report.h"

namespace isthmus::apps {

// Per second, between two reports.
struct TrafficRate {
  double messages_sent = 0;
  double messages_received = 0;
  double bytes_sent = 0;
  double bytes_received = 0;
  double packets_sent = 0;
  double packets_received = 0;
  friend bool operator==(const TrafficRate&, const TrafficRate&) = default;
};

TrafficRate rate_between(const control::TrafficReport& before, const control::TrafficReport& now,
                         std::uint64_t elapsed_ns);

// All the functions of one process.
struct InstanceSummary {
  std::int32_t process_id = 0;
  std::string program;
  std::string label;
  std::uint32_t functions = 0;
  std::uint32_t queue_pairs = 0;
  std::uint32_t memory_regions = 0;
  std::uint32_t completion_queues = 0;
  std::uint64_t registered_bytes = 0;
  control::TrafficReport traffic;
  TrafficRate rate;
};

// `before` gives the rates: functions are found in it by index and generation. Null: no rates.
std::vector<InstanceSummary> summarize(const control::StatusReport& now,
                                       const control::StatusReport* before);

std::string host_text(const control::StatusReport& status);
std::string instances_text(const std::vector<InstanceSummary>& instances);
std::string queue_pairs_text(const control::StatusReport& now, const control::StatusReport* before);
std::string memory_regions_text(const control::StatusReport& status);
std::string counters_text(const control::StatusReport& status);

// "read write atomic": ibv_access_flags.
std::string access_text(std::uint32_t access);

}  // namespace isthmus::apps
