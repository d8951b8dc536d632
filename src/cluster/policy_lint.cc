#include "cluster/policy_lint.h"

#include <algorithm>
#include <span>
#include <string_view>
#include <unordered_map>

#include "cluster/policy_text.h"

namespace isthmus::cluster {
namespace {

// Each of `narrow` lies within one of `wide`. An empty list asks for nothing and is the widest.
template <class T, class Covers>
bool list_covers(const std::vector<T>& wide, const std::vector<T>& narrow, Covers covers) {
  if (wide.empty()) return true;
  return !narrow.empty() && std::ranges::all_of(narrow, [&](const T& n) {
    return std::ranges::any_of(wide, [&](const T& w) { return covers(w, n); });
  });
}

bool side_covers(const EndpointPattern& wide, const EndpointPattern& narrow) {
  return list_covers(wide.labels, narrow.labels, label_covers) &&
         list_covers(wide.gids, narrow.gids,
                     [](const GidPrefix& w, const GidPrefix& n) { return w.covers(n); });
}

bool rule_covers(const PolicyRule& wide, const PolicyRule& narrow) {
  const auto port_covers = [](PortRange w, PortRange n) {
    return w.first <= n.first && n.last <= w.last;
  };
  return wide.transports.covers(narrow.transports) && side_covers(wide.from, narrow.from) &&
         side_covers(wide.to, narrow.to) && list_covers(wide.ports, narrow.ports, port_covers);
}

std::string at_line(const PolicyRule& rule) {
  return rule.line == 0 ? "" : " (line " + std::to_string(rule.line) + ")";
}

void lint_reach(const PolicyRule& rule, std::span<const PolicyRule> earlier,
                std::vector<PolicyLint>& lints) {
  const auto first = std::ranges::find_if(
      earlier, [&](const PolicyRule& candidate) { return rule_covers(candidate, rule); });
  if (first == earlier.end()) return;
  lints.push_back({rule.line, "rule " + in_quotes(rule.name) +
                                  " is never reached: " + in_quotes(first->name) + at_line(*first) +
                                  " matches all that it matches; move it up or delete it"});
}

// The one-sided operations that at least one of these transports has.
Rights rights_of(TransportSet transports) {
  Rights rights = Rights::send_only();
  const bool reliable = transports.has(Transport::kRc) || transports.has(Transport::kXrc);
  if (reliable) return Rights::all();
  if (transports.has(Transport::kUc)) rights = rights.with(Right::kWrite);
  return rights;
}

void lint_rights(const PolicyRule& rule, std::vector<PolicyLint>& lints) {
  const Rights useless_forward = rule.forward.without(rights_of(rule.transports));
  const Rights useless_backward = rule.backward.without(rights_of(rule.transports));
  if (useless_forward.empty() && useless_backward.empty()) return;
  const Rights useless = useless_forward.empty() ? useless_backward : useless_forward;
  lints.push_back({rule.line, "rule " + in_quotes(rule.name) + " grants " + to_string(useless) +
                                  ", which none of its transports has; leave it out, or name rc"});
}

// What a deny rule cannot match for want of a label or a port goes on to the later rules. It is a
// trap only if none of them denies it, in a document that allows the rest.
void lint_evasion(const PolicyRule& rule, std::span<const PolicyRule> later,
                  std::vector<PolicyLint>& lints) {
  if (rule.decision != Decision::kDeny) return;
  PolicyRule meant = rule;
  meant.from.labels.clear();
  meant.to.labels.clear();
  meant.ports.clear();
  if (std::ranges::any_of(later, [&](const PolicyRule& candidate) {
        return candidate.decision == Decision::kDeny && rule_covers(candidate, meant);
      })) {
    return;
  }
  const std::string advice = "; deny by gid, or write default = \"deny\"";
  if (!rule.from.labels.empty() || !rule.to.labels.empty()) {
    lints.push_back({rule.line, "rule " + in_quotes(rule.name) +
                                    " denies by label, and a peer whose label is unknown here "
                                    "passes it" +
                                    advice});
  }
  if (!rule.ports.empty()) {
    lints.push_back({rule.line, "rule " + in_quotes(rule.name) +
                                    " denies by port, and a QP connected without CM has none and "
                                    "passes it" +
                                    advice});
  }
}

// Hosts do not tell each other the labels of their instances. A rule that names addresses is meant
// for several hosts, where at least one of two labels is always unknown.
void lint_labels(const PolicyRule& rule, std::vector<PolicyLint>& lints) {
  const bool asks_gid = !rule.from.gids.empty() || !rule.to.gids.empty();
  if (rule.from.labels.empty() || rule.to.labels.empty() || !asks_gid) return;
  lints.push_back({rule.line, "rule " + in_quotes(rule.name) +
                                  " asks for the labels of both sides, so it matches within one "
                                  "host only; for two hosts name the far side by gid alone"});
}

}  // namespace

std::vector<PolicyLint> lint(const PolicyDocument& document) {
  std::vector<PolicyLint> lints;
  if (!document.default_decision) {
    lints.push_back({0,
                     "no default is written, so all that no rule matches is allowed; write "
                     "default = \"allow\" or default = \"deny\""});
  }
  const std::span<const PolicyRule> rules = document.rules;
  std::unordered_map<std::string_view, const PolicyRule*> first_of_name;
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const PolicyRule& rule = rules[i];
    const auto [first, is_new] = first_of_name.try_emplace(rule.name, &rule);
    if (!is_new) {
      lints.push_back({rule.line, "rule " + in_quotes(rule.name) + " has the name of another rule" +
                                      at_line(*first->second) +
                                      "; logs cannot tell them apart, rename one"});
    }
    lint_reach(rule, rules.first(i), lints);
    lint_rights(rule, lints);
    lint_labels(rule, lints);
    if (document.decision_without_rule() == Decision::kAllow) {
      lint_evasion(rule, rules.subspan(i + 1), lints);
    }
  }
  return lints;
}

}  // namespace isthmus::cluster
