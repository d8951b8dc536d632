// Daemon: what its operator asks, and policy changes.
#include <algorithm>

#include "apps/isthmusd_daemon.h"
#include "apps/isthmusd_report.h"
#include "base/log.h"
#include "cluster/policy_toml.h"
#include "control/window_view.h"
#include "os/clock.h"
#include "os/process.h"
#include "os/text_file.h"

namespace isthmus::apps {

control::VersionReport Daemon::version() {
  return {.version = ISTHMUS_VERSION, .process_id = os::process_id()};
}

control::StatusReport Daemon::status(const control::StatusDetail& detail) {
  control::StatusReport report{.label = default_label_,
                               .version = ISTHMUS_VERSION,
                               .process_id = os::process_id(),
                               .private_daemon = options_.is_private,
                               .taken_ns = os::now_ns(),
                               .started_ns = started_ns_,
                               .socket = options_.socket,
                               .counters = report_of(functions_->counters())};
  for (const auto& site : sites_) {
    for (const control::LocalGid& gid : site->place().gids()) {
      report.addresses.push_back(gid.address.to_string());
    }
    for (const auto& counter : site->cm().counters()) {
      const auto same =
          std::ranges::find(report.counters, counter.name, &control::CounterReport::name);
      if (same != report.counters.end()) {
        same->value += counter.value;
      } else {
        report.counters.push_back({counter.name, counter.value});
      }
    }
  }
  functions_->for_each([&](const control::Function& function) {
    report.functions.push_back(report_of(function, detail));
  });
  return report;
}

StandingConnections Daemon::connections() {
  std::vector<control::CmService*> managers;
  for (const auto& site : sites_) managers.push_back(&site->cm());
  return standing_connections(*functions_, managers);
}

control::PolicyReport Daemon::policy() {
  const cluster::PolicyDocument& document = host_policy_->document();
  return {.document = policy_text_,
          .name = policy_name_,
          .connections = report_connections(connections(), document, document)};
}

Result<control::PolicyReport> Daemon::change_policy(const control::PolicyChange& change) {
  cluster::PolicyDocument document =
      ISTHMUS_TRY(cluster::parse_policy(change.document, change.name));
  // What each connection would have under the new document, beside what it has now.
  control::PolicyReport report{
      .document = change.document,
      .name = change.name,
      .connections = report_connections(connections(), host_policy_->document(), document)};
  if (change.action == control::PolicyAction::kApply) {
    apply(std::move(document), change.document, change.name);
  }
  return report;
}

std::uint32_t Daemon::apply(cluster::PolicyDocument document, std::string text, std::string name) {
  host_policy_->replace(std::move(document));
  policy_text_ = std::move(text);
  policy_name_ = std::move(name);
  // The connection manager first: its grants are what the function service believes.
  std::size_t touched = 0;
  for (const auto& site : sites_) touched += site->cm().reevaluate();
  touched += functions_->reevaluate();
  ISTHMUS_LOG(kInfo, "policy %s is in force; %zu connections lost something", policy_name_.c_str(),
              touched);
  return static_cast<std::uint32_t>(touched);
}

void Daemon::reload_policy() {
  if (options_.policy_file.empty()) return;
  auto text = os::read_text_file(options_.policy_file);
  auto document = text ? cluster::parse_policy(*text, options_.policy_file)
                       : Result<cluster::PolicyDocument>(std::unexpected(text.error()));
  if (!document) {
    ISTHMUS_LOG(kError, "the policy stays as it was: %s", document.error().message.c_str());
    return;
  }
  apply(std::move(*document), std::move(*text), options_.policy_file);
}

Result<std::uint32_t> Daemon::change_channel(const control::ChannelChange& change) {
  const bool memory = change.kind == "memory";
  if (!memory && change.kind != "roce") {
    return fail(ErrorCode::kInvalid, "\"%s\" is no channel; there are roce and memory",
                change.kind.c_str());
  }
  const auto kind = memory ? rdma::ChannelKind::kMemory : rdma::ChannelKind::kRoce;
  std::uint32_t asked = 0;
  std::optional<Error> failed;
  const auto ask = [&](std::uint32_t qpn) {
    const auto told = functions_->change_channel(qpn, kind);
    if (told) {
      ++asked;
    } else {
      failed = told.error();
    }
  };
  if (change.all) {
    functions_->for_each([&](const control::Function& function) {
      for (const auto& [qpn, admission] : function.admissions) ask(qpn);
    });
  } else {
    const control::Function* function = functions_->owner_of_qp(change.qpn);
    if (!function || !function->admissions.contains(change.qpn)) {
      return fail(ErrorCode::kNotFound, "no connected queue pair here has the number 0x%06x",
                  change.qpn);
    }
    ask(change.qpn);
  }
  if (asked == 0 && failed) return std::unexpected(std::move(*failed));
  return asked;
}

Result<void> Daemon::capture(std::uint32_t qpn, std::weak_ptr<control::PacketSink> sink) {
  captures_->add(qpn, std::move(sink));
  return {};
}

}  // namespace isthmus::apps
