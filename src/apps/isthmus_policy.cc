// isthmus policy check, apply, show.
#include <fmt/format.h>

#include <algorithm>

#include "apps/isthmus_json.h"
#include "apps/isthmus_session.h"
#include "apps/isthmus_table.h"
#include "cluster/policy_lint.h"
#include "cluster/policy_toml.h"
#include "os/text_file.h"

namespace isthmus::apps {
namespace {

using control::PolicyAction;
using control::PolicyReport;

struct Source {
  std::string name;
  std::string text;
};

Result<Source> read_source(const std::string& file) {
  if (file == "-") {
    return Source{.name = "standard input", .text = ISTHMUS_TRY(os::read_standard_input())};
  }
  return Source{.name = file, .text = ISTHMUS_TRY(os::read_text_file(file))};
}

std::string connections_text(const std::vector<control::ConnectionReport>& connections) {
  using Align = Table::Align;
  Table table{{{"QPN", Align::kRight},
               {"PID", Align::kRight},
               {"PROGRAM"},
               {"FROM"},
               {"TO"},
               {"PORT", Align::kRight},
               {"TRANSPORT"},
               {"DECISION"},
               {"RIGHTS"},
               {"RULE"}}};
  for (const auto& connection : connections) {
    table.add({fmt::format("{:#08x}", connection.qpn), std::to_string(connection.process_id),
               connection.program, connection.from, connection.to,
               connection.port == 0 ? "-" : std::to_string(connection.port), connection.transport,
               connection.decision, connection.rights, connection.rule});
  }
  return table.text();
}

std::vector<control::ConnectionReport> changed_only(const PolicyReport& policy) {
  std::vector<control::ConnectionReport> changed;
  std::ranges::copy_if(policy.connections, std::back_inserter(changed),
                       [](const auto& connection) { return connection.changed; });
  return changed;
}

void print_lints(const Source& source, const cluster::PolicyDocument& document) {
  for (const auto& found : cluster::lint(document)) {
    if (found.line == 0) {
      fmt::print("{}: note: {}\n", source.name, found.text);
    } else {
      fmt::print("{}:{}: note: {}\n", source.name, found.line, found.text);
    }
  }
}

}  // namespace

CommandResult check_policy(const GlobalOptions& global, const PolicyOptions& options) {
  const Source source = ISTHMUS_TRY(read_source(options.file));
  const auto document = cluster::parse_policy(source.text, source.name);
  if (!document) {
    fmt::print("{}\n", document.error().message);
    return kExitFailed;
  }
  print_lints(source, *document);
  fmt::print("{}: {} rule{}, default {}\n", source.name, document->rules.size(),
             document->rules.size() == 1 ? "" : "s",
             document->decision_without_rule() == cluster::Decision::kAllow ? "allow" : "deny");
  const auto client = connect_to_daemon(global);
  if (!client) return kExitDone;  // Nobody whose connections it could end.
  const PolicyReport effect = ISTHMUS_TRY((*client)->change_policy(
      {.document = source.text, .name = source.name, .action = PolicyAction::kCheckOnly}));
  const auto changed = changed_only(effect);
  fmt::print("it would take something from {} of {} live connections\n", changed.size(),
             effect.connections.size());
  if (!changed.empty()) fmt::print("{}", connections_text(changed));
  return kExitDone;
}

CommandResult apply_policy(const GlobalOptions& global, const PolicyOptions& options) {
  const Source source = ISTHMUS_TRY(read_source(options.file));
  const auto document = cluster::parse_policy(source.text, source.name);
  if (!document) {
    fmt::print("{}\n", document.error().message);
    return kExitFailed;
  }
  const auto client = ISTHMUS_TRY(connect_to_daemon(global));
  const PolicyReport effect = ISTHMUS_TRY(client->change_policy(
      {.document = source.text, .name = source.name, .action = PolicyAction::kApply}));
  const auto changed = changed_only(effect);
  fmt::print("{} is in force; it took something from {} of {} live connections\n", source.name,
             changed.size(), effect.connections.size());
  if (!changed.empty()) fmt::print("{}", connections_text(changed));
  return kExitDone;
}

CommandResult show_policy(const GlobalOptions& global, const PolicyOptions& options) {
  const auto client = ISTHMUS_TRY(connect_to_daemon(global));
  const PolicyReport policy = ISTHMUS_TRY(client->policy());
  if (options.json) {
    fmt::print("{}\n", policy_json(policy));
    return kExitDone;
  }
  fmt::print("# {}\n{}", policy.name.empty() ? "no document: everything is allowed" : policy.name,
             policy.document);
  if (policy.connections.empty()) {
    fmt::print("\nno live connections\n");
  } else {
    fmt::print("\n{}", connections_text(policy.connections));
  }
  return kExitDone;
}

}  // namespace isthmus::apps
