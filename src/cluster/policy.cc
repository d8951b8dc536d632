#include "cluster/policy.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace isthmus::cluster {
namespace {

// Compares the first `bits` bits, which is at most kGidBits.
bool equal_prefix(const Gid& a, const Gid& b, std::size_t bits) {
  ISTHMUS_ASSERT(bits <= kGidBits);
  const std::size_t whole = bits / 8;
  if (!std::equal(a.begin(), a.begin() + whole, b.begin())) return false;
  const std::size_t rest = bits % 8;
  return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == std::byte{0};
}

bool matches(const EndpointPattern& pattern, const Endpoint& endpoint) {
  const auto label_fits = [&](const std::string& p) { return label_matches(p, *endpoint.label); };
  const auto gid_fits = [&](const GidPrefix& p) { return p.contains(*endpoint.gid); };
  const auto& [labels, gids] = pattern;
  return (labels.empty() || (endpoint.label && std::ranges::any_of(labels, label_fits))) &&
         (gids.empty() || (endpoint.gid && std::ranges::any_of(gids, gid_fits)));
}

bool matches(const std::vector<PortRange>& ports, std::optional<std::uint16_t> port) {
  const auto fits = [&](PortRange range) { return range.first <= *port && *port <= range.last; };
  return ports.empty() || (port && std::ranges::any_of(ports, fits));
}

PolicyVerdict verdict_of(const PolicyRule& rule, Rights forward, Rights backward) {
  ISTHMUS_ASSERT(forward.has(Right::kSend) == (rule.decision == Decision::kAllow));
  return {rule.decision, forward, backward, rule.name};
}

// The side whose own daemon had to pass what this query is about; null where it comes from here.
const Endpoint* sender_elsewhere(const ConnectionQuery& query) {
  switch (query.direction) {
    case Direction::kRequestIn:
      return &query.from;
    case Direction::kReplyIn:
    case Direction::kWithoutCm:
      return &query.to;
    case Direction::kRequestOut:
    case Direction::kReplyOut:
      return nullptr;
  }
  return nullptr;
}

// The rule's verdict, if it matches. Without CM either side may be the rule's `from`; where both
// ways match, nobody knows which is meant and each side gets only what both ways would give it.
std::optional<PolicyVerdict> try_rule(const PolicyRule& rule, const ConnectionQuery& query) {
  if (!rule.transports.has(query.transport) || !matches(rule.ports, query.port)) return {};
  const bool as_asked = matches(rule.from, query.from) && matches(rule.to, query.to);
  const bool turned_round = query.direction == Direction::kWithoutCm &&
                            matches(rule.from, query.to) && matches(rule.to, query.from);
  if (as_asked && turned_round) {
    const Rights common = rule.forward.both(rule.backward);
    return verdict_of(rule, common, common);
  }
  if (as_asked) return verdict_of(rule, rule.forward, rule.backward);
  if (turned_round) return verdict_of(rule, rule.backward, rule.forward);
  return {};
}

// Matches the pattern against a text; `is_star` names the characters of the text that only a `*`
// may stand for. Backtracks to the last star alone, which is enough, and keeps the time below
// |pattern| * |text|.
template <class IsStar>
bool glob(std::string_view pattern, std::string_view text, IsStar is_star) {
  std::size_t p = 0;
  std::size_t t = 0;
  std::size_t after_star = std::string_view::npos;
  std::size_t resume = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      after_star = ++p;
      resume = t;
    } else if (p < pattern.size() && !is_star(text[t]) &&
               (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (after_star != std::string_view::npos) {
      p = after_star;
      t = ++resume;
    } else {
      return false;
    }
  }
  return pattern.find_first_not_of('*', p) == std::string_view::npos;
}

}  // namespace

std::string to_string(Rights rights) {
  static constexpr std::pair<Right, std::string_view> kWords[] = {
      {Right::kSend, "send"},
      {Right::kRead, "read"},
      {Right::kWrite, "write"},
      {Right::kAtomic, "atomic"},
  };
  std::string text;
  for (const auto& [right, word] : kWords) {
    if (!rights.has(right)) continue;
    if (!text.empty()) text += ' ';
    text += word;
  }
  return text.empty() ? "nothing" : text;
}

std::string_view to_string(Transport transport) {
  switch (transport) {
    case Transport::kRc:
      return "rc";
    case Transport::kUc:
      return "uc";
    case Transport::kUd:
      return "ud";
    case Transport::kXrc:
      return "xrc";
  }
  return "unknown";
}

bool GidPrefix::contains(const Gid& gid) const { return equal_prefix(address, gid, bits); }

bool GidPrefix::covers(const GidPrefix& other) const {
  return bits <= other.bits && contains(other.address);
}

bool label_matches(std::string_view pattern, std::string_view label) {
  return glob(pattern, label, [](char) { return false; });
}

// The narrow pattern is read as a text: its `*` may stand for any text, so only a `*` of the wide
// one is wide enough for it; its `?` equals the wide one's `?`, or a `*` swallows it.
bool label_covers(std::string_view wide, std::string_view narrow) {
  return glob(wide, narrow, [](char c) { return c == '*'; });
}

bool PolicyDocument::requires_mark(const Gid& peer) const {
  return std::ranges::any_of(require_mark, [&](const GidPrefix& p) { return p.contains(peer); });
}

PolicyVerdict PolicyDocument::evaluate(const ConnectionQuery& query) const {
  if (query.mark == Mark::kAbsent) {
    // An unknown sender cannot be shown to be outside of the list: with a list, it needs a mark.
    const Endpoint* sender = sender_elsewhere(query);
    if (sender && !require_mark.empty() && (!sender->gid || requires_mark(*sender->gid))) {
      return {Decision::kDeny, {}, {}, kRequireMarkName};
    }
  }
  for (const PolicyRule& rule : rules) {
    if (const std::optional<PolicyVerdict> verdict = try_rule(rule, query)) return *verdict;
  }
  if (decision_without_rule() == Decision::kDeny) return {Decision::kDeny, {}, {}, kDefaultName};
  return {Decision::kAllow, Rights::all(), Rights::all(), kDefaultName};
}

std::vector<PolicyLoss> diff(const PolicyDocument& before, const PolicyDocument& after,
                             std::span<const LiveConnection> live) {
  std::vector<PolicyLoss> losses;
  for (const LiveConnection& connection : live) {
    const PolicyVerdict had = before.evaluate(connection.query);
    const PolicyVerdict has = after.evaluate(connection.query);
    const Rights forward = had.forward.without(has.forward);
    const Rights backward = had.backward.without(has.backward);
    if (forward.empty() && backward.empty()) continue;
    losses.push_back({connection.id, forward, backward, has});
  }
  return losses;
}

}  // namespace isthmus::cluster
