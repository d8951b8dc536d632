#include "apps/isthmus_json.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace isthmus::apps {
namespace {

using Json = nlohmann::ordered_json;
using namespace control;

// Labels and program names are bytes of others; what is no UTF-8 must not stop the output.
std::string text_of(const Json& json) {
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

Json json_of(const TrafficReport& traffic) {
  return {{"messages_sent", traffic.messages_sent},
          {"messages_received", traffic.messages_received},
          {"bytes_sent", traffic.bytes_sent},
          {"bytes_received", traffic.bytes_received},
          {"packets_sent", traffic.packets_sent},
          {"packets_received", traffic.packets_received},
          {"retries", traffic.retries},
          {"drops", traffic.drops}};
}

Json json_of(const TrafficRate& rate) {
  return {{"messages_sent", rate.messages_sent}, {"messages_received", rate.messages_received},
          {"bytes_sent", rate.bytes_sent},       {"bytes_received", rate.bytes_received},
          {"packets_sent", rate.packets_sent},   {"packets_received", rate.packets_received}};
}

Json json_of(const QueuePairReport& qp) {
  return {{"qpn", qp.qpn},
          {"type", qp.type},
          {"state", qp.state},
          {"local_gid", qp.local_gid},
          {"remote_gid", qp.remote_gid},
          {"dest_qpn", qp.dest_qpn},
          {"channel", qp.channel},
          {"access", qp.access},
          {"traffic", json_of(qp.traffic)}};
}

Json json_of(const FunctionReport& function) {
  Json json{{"index", function.index},
            {"generation", function.generation},
            {"process_id", function.process_id},
            {"program", function.program},
            {"label", function.label},
            {"queue_pair_count", function.queue_pair_count},
            {"memory_region_count", function.memory_region_count},
            {"completion_queue_count", function.completion_queue_count},
            {"registered_bytes", function.registered_bytes},
            {"traffic", json_of(function.traffic)}};
  Json& pairs = json["queue_pairs"] = Json::array();
  for (const auto& qp : function.queue_pairs) pairs.push_back(json_of(qp));
  Json& regions = json["memory_regions"] = Json::array();
  for (const auto& region : function.memory_regions) {
    regions.push_back({{"key", region.key},
                       {"iova", region.iova},
                       {"length", region.length},
                       {"access", region.access},
                       {"window", region.window}});
  }
  return json;
}

}  // namespace

std::string status_json(const StatusReport& now, const StatusReport* before) {
  Json json{{"label", now.label},           {"version", now.version},
            {"process_id", now.process_id}, {"private", now.private_daemon},
            {"taken_ns", now.taken_ns},     {"started_ns", now.started_ns},
            {"addresses", now.addresses},   {"socket", now.socket}};
  Json& functions = json["functions"] = Json::array();
  for (const auto& function : now.functions) {
    Json added = json_of(function);
    TrafficRate rate;
    if (before != nullptr && now.taken_ns > before->taken_ns) {
      const auto same = std::ranges::find_if(before->functions, [&](const auto& earlier) {
        return earlier.index == function.index && earlier.generation == function.generation;
      });
      if (same != before->functions.end()) {
        rate = rate_between(same->traffic, function.traffic, now.taken_ns - before->taken_ns);
      }
    }
    added["per_second"] = json_of(rate);
    functions.push_back(std::move(added));
  }
  Json& counters = json["counters"] = Json::object();
  for (const auto& counter : now.counters) counters[counter.name] = counter.value;
  return text_of(json);
}

std::string policy_json(const PolicyReport& policy) {
  Json json{{"name", policy.name}, {"document", policy.document}};
  Json& connections = json["connections"] = Json::array();
  for (const auto& connection : policy.connections) {
    connections.push_back({{"qpn", connection.qpn},
                           {"process_id", connection.process_id},
                           {"program", connection.program},
                           {"from", connection.from},
                           {"to", connection.to},
                           {"port", connection.port},
                           {"transport", connection.transport},
                           {"decision", connection.decision},
                           {"rights", connection.rights},
                           {"rule", connection.rule}});
  }
  return text_of(json);
}

std::string findings_json(const std::vector<Finding>& findings) {
  Json json = Json::array();
  for (const auto& finding : findings) {
    json.push_back({{"level", level_name(finding.level)},
                    {"subject", finding.subject},
                    {"state", finding.state},
                    {"advice", finding.advice}});
  }
  return text_of(json);
}

std::string lab_json(const std::vector<LabHostStatus>& hosts) {
  Json json = Json::array();
  for (const auto& status : hosts) {
    json.push_back({{"name", status.host.name},
                    {"address", status.host.address},
                    {"address6", status.host.address6},
                    {"namespace", status.host.network_namespace},
                    {"socket", status.host.socket},
                    {"daemon_process", status.daemon_process},
                    {"programs", status.programs},
                    {"queue_pairs", status.queue_pairs}});
  }
  return text_of(json);
}

std::string version_json(const std::string& program, const VersionReport* daemon) {
  Json json{{"isthmus", program}, {"isthmusd", nullptr}};
  if (daemon != nullptr) {
    json["isthmusd"] = {{"version", daemon->version}, {"process_id", daemon->process_id}};
  }
  return text_of(json);
}

std::string far_processes_json(const std::vector<FarProcess>& processes) {
  Json list = Json::array();
  for (const FarProcess& process : processes) {
    const farmem::PagerStats& stats = process.stats;
    list.push_back({{"process_id", process.process_id},
                    {"program", process.program},
                    {"pages_local", stats.pages_local},
                    {"pages_staged", stats.pages_staged},
                    {"pages_remote", stats.pages_remote},
                    {"local_limit_pages", stats.local_limit_pages},
                    {"faults", stats.faults},
                    {"faults_first", stats.faults_first},
                    {"faults_write", stats.faults_write},
                    {"faults_staged", stats.faults_staged},
                    {"faults_remote", stats.faults_remote},
                    {"pages_read", stats.pages_read},
                    {"pages_written", stats.pages_written},
                    {"evicted_clean", stats.evicted_clean},
                    {"evicted_zero", stats.evicted_zero},
                    {"prefetched", stats.prefetched},
                    {"prefetch_used", stats.prefetch_used},
                    {"prefetch_late", stats.prefetch_late},
                    {"fault_times_ns", stats.fault_times.buckets}});
  }
  return text_of(list);
}

}  // namespace isthmus::apps
