#include "cluster/policy_toml.h"

// The one place of toml++, which is slow to compile. It is kept from what 3.3 does not survive: see
// toml_guard.h. A document of ours nests five values deep: rule, rule's table, to, port, number.
//
// Its assertions are about the text too ("[=" fails one), though an error return follows those that
// a text can fail. So they are off; and so is NDEBUG, which would make promises to the compiler of
// them.
#undef NDEBUG
#define TOML_ASSERT(expression) static_assert(true)
#define TOML_EXCEPTIONS 0
#define TOML_HEADER_ONLY 1
#define TOML_ENABLE_FORMATTERS 0
#define TOML_MAX_NESTED_VALUES 8
#include <toml++/toml.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>

#include "cluster/policy_text.h"
#include "cluster/toml_guard.h"

namespace isthmus::cluster {
namespace {

// After these many problems a person has enough to do.
constexpr std::size_t kMaxProblems = 10;

using Words = std::initializer_list<std::string_view>;

std::string any_of_words(Words words) {
  std::string text;
  for (std::string_view word : words) {
    if (!text.empty()) text += word == *(words.end() - 1) ? " or " : ", ";
    text += word;
  }
  return text;
}

bool printable(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return ' ' <= c && c <= '~'; });
}

std::string what_it_is(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "the text " + in_quotes(node.as_string()->get());
    case toml::node_type::integer:
      return "the number " + std::to_string(node.as_integer()->get());
    case toml::node_type::boolean:
      return node.as_boolean()->get() ? "true" : "false";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    default:
      return "a date or time";
  }
}

// Walks the tree of one document and gathers what is wrong with it.
class Reader {
 public:
  explicit Reader(std::string_view document_name) : document_name_(document_name) {}

  PolicyDocument read(const toml::table& root);
  const std::string& problems() const { return problems_; }

 private:
  void problem(const toml::source_region& where, const std::string& text);
  void expect_keys(const toml::table& table, std::string_view what, Words known);
  void read_rule(const toml::table& table, std::size_t number, PolicyRule& rule);
  void read_name(const toml::node& node, PolicyRule& rule);
  void read_side(const toml::node& node, std::string_view key, PolicyRule& rule);
  void read_decision(const toml::table& table, PolicyRule& rule);
  Rights read_rights(const toml::node& node, std::string_view key);
  void read_gids(const toml::node& node, std::string_view key, std::vector<GidPrefix>& gids);
  void read_label(const toml::node& node, std::vector<std::string>& labels);
  void read_port(const toml::node& node, std::vector<PortRange>& ports);

  // The index of a text among `words`; a problem and the number of words where it is none.
  std::size_t read_word(const toml::node& node, std::string_view key, Words words);
  // Calls `each` for the elements of a list, or for the value that stands in its place. An empty
  // list of patterns would match nothing, where its author may well have meant everything.
  template <class Each>
  void read_list(const toml::node& node, std::string_view key, Each each);

  std::string_view document_name_;
  std::string problems_;
  std::size_t problem_count_ = 0;
};

void Reader::problem(const toml::source_region& where, const std::string& text) {
  if (++problem_count_ > kMaxProblems) return;
  if (!problems_.empty()) problems_ += '\n';
  problems_ += place_in(document_name_, where.begin.line, where.begin.column) + text;
}

void Reader::expect_keys(const toml::table& table, std::string_view what, Words known) {
  for (const auto& [key, value] : table) {
    if (std::ranges::find(known, key.str()) != known.end()) continue;
    problem(key.source(), "found key " + in_quotes(key.str()) + ", which " + std::string(what) +
                              " does not have; write " + any_of_words(known));
  }
}

template <class Each>
void Reader::read_list(const toml::node& node, std::string_view key, Each each) {
  const toml::array* list = node.as_array();
  if (!list) return each(node);
  const Words may_be_empty = {"allow", "allow_back", "require_mark"};
  if (list->empty() && std::ranges::find(may_be_empty, key) == may_be_empty.end()) {
    problem(node.source(), "found an empty list for " + std::string(key) +
                               ", which would match nothing; leave " + std::string(key) +
                               " out to match all");
  }
  if (list->size() > kMaxPatternsPerList) {
    problem(node.source(), "found " + std::to_string(list->size()) + " values for " +
                               std::string(key) + "; write at most " +
                               std::to_string(kMaxPatternsPerList) + ", or more rules");
    return;
  }
  for (const toml::node& element : *list) each(element);
}

std::size_t Reader::read_word(const toml::node& node, std::string_view key, Words words) {
  const auto* text = node.as_string();
  const auto found = text ? std::ranges::find(words, std::string_view(text->get())) : words.end();
  if (found == words.end()) {
    problem(node.source(), "found " + what_it_is(node) + " for " + std::string(key) + "; write " +
                               any_of_words(words) + " in quotation marks");
  }
  return static_cast<std::size_t>(found - words.begin());
}

void Reader::read_gids(const toml::node& node, std::string_view key, std::vector<GidPrefix>& gids) {
  read_list(node, key, [&](const toml::node& element) {
    const auto* text = element.as_string();
    if (!text) {
      problem(element.source(), "found " + what_it_is(element) + " for " + std::string(key) +
                                    "; write an address prefix like \"10.0.0.0/8\"");
      return;
    }
    Result<GidPrefix> prefix = parse_gid_prefix(text->get());
    if (!prefix) return problem(element.source(), prefix.error().message);
    gids.push_back(*prefix);
  });
}

void Reader::read_label(const toml::node& node, std::vector<std::string>& labels) {
  read_list(node, "label", [&](const toml::node& element) {
    const auto* text = element.as_string();
    if (!text || text->get().empty() || text->get().size() > kMaxNameBytes ||
        !printable(text->get())) {
      problem(element.source(), "found " + what_it_is(element) +
                                    " for label; write a label of 1 to " +
                                    std::to_string(kMaxNameBytes) +
                                    " printable characters, * for any of them, ? for one");
      return;
    }
    labels.push_back(text->get());
  });
}

void Reader::read_port(const toml::node& node, std::vector<PortRange>& ports) {
  read_list(node, "port", [&](const toml::node& element) {
    std::string text;
    if (const auto* number = element.as_integer()) text = std::to_string(number->get());
    if (const auto* range = element.as_string()) text = range->get();
    if (text.empty()) {
      problem(element.source(), "found " + what_it_is(element) +
                                    " for port; write a number or a range like \"8000-8100\"");
      return;
    }
    Result<PortRange> range = parse_port_range(text);
    if (!range) return problem(element.source(), range.error().message);
    ports.push_back(*range);
  });
}

void Reader::read_side(const toml::node& node, std::string_view key, PolicyRule& rule) {
  const toml::table* table = node.as_table();
  const bool is_to = key == "to";
  if (!table) {
    problem(node.source(), "found " + what_it_is(node) + " for " + std::string(key) +
                               "; write a table like { label = \"db-*\", gid = \"10.0.0.0/8\" }");
    return;
  }
  if (!is_to && table->contains("port")) {
    problem(table->get("port")->source(),
            "found port in from; write it in to: it is the port of the service asked for");
    return;
  }
  if (is_to) {
    expect_keys(*table, "to", {"label", "gid", "port"});
  } else {
    expect_keys(*table, "from", {"label", "gid"});
  }
  EndpointPattern& side = is_to ? rule.to : rule.from;
  if (const toml::node* labels = table->get("label")) read_label(*labels, side.labels);
  if (const toml::node* gids = table->get("gid")) read_gids(*gids, "gid", side.gids);
  if (const toml::node* ports = table->get("port")) read_port(*ports, rule.ports);
}

Rights Reader::read_rights(const toml::node& node, std::string_view key) {
  static constexpr Right kRights[] = {Right::kRead, Right::kWrite, Right::kAtomic};
  const bool forward = key == "allow";
  bool connects = !forward;
  bool understood = true;
  Rights rights = Rights::send_only();
  read_list(node, key, [&](const toml::node& element) {
    if (const auto* text = element.as_string(); text && text->get() == "send") {
      problem(element.source(), "found 'send'; leave it out: it comes with \"connect\"");
      understood = false;
      return;
    }
    const std::size_t word = forward
                                 ? read_word(element, key, {"read", "write", "atomic", "connect"})
                                 : read_word(element, key, {"read", "write", "atomic"});
    const bool connect = forward && word == std::size(kRights);
    if (word < std::size(kRights)) rights = rights.with(kRights[word]);
    connects = connects || connect;
    understood = understood && (connect || word < std::size(kRights));
  });
  // A word that is none may have been meant for "connect": one message is enough.
  if (!connects && understood) {
    problem(node.source(),
            "found allow without \"connect\", which allows nothing; add \"connect\", or write "
            "deny = true");
  }
  return rights;
}

void Reader::read_decision(const toml::table& table, PolicyRule& rule) {
  const toml::node* allow = table.get("allow");
  const toml::node* allow_back = table.get("allow_back");
  const toml::node* deny = table.get("deny");
  if ((allow != nullptr) == (deny != nullptr)) {
    problem(table.source(), std::string("found ") +
                                (allow ? "both allow and deny" : "no decision") +
                                " in this rule; write either allow = [\"connect\", ...] or "
                                "deny = true");
    return;
  }
  if (deny) {
    if (!deny->is_boolean() || !deny->as_boolean()->get()) {
      problem(deny->source(), "found " + what_it_is(*deny) + " for deny; write deny = true");
    }
    if (allow_back) {
      problem(allow_back->source(), "found allow_back in a rule that denies; leave it out");
    }
    rule.decision = Decision::kDeny;
    return;
  }
  rule.decision = Decision::kAllow;
  rule.forward = read_rights(*allow, "allow");
  rule.backward = allow_back ? read_rights(*allow_back, "allow_back") : rule.forward;
}

void Reader::read_name(const toml::node& node, PolicyRule& rule) {
  const auto* text = node.as_string();
  if (!text || text->get().empty() || text->get().size() > kMaxNameBytes ||
      !printable(text->get())) {
    problem(node.source(), "found " + what_it_is(node) + " for name; write 1 to " +
                               std::to_string(kMaxNameBytes) + " printable characters");
    return;
  }
  if (text->get() == kDefaultName || text->get() == kRequireMarkName) {
    problem(node.source(), "found " + what_it_is(node) +
                               " for name, which stands for a decision without a rule; write "
                               "another name");
    return;
  }
  rule.name = text->get();
}

void Reader::read_rule(const toml::table& table, std::size_t number, PolicyRule& rule) {
  expect_keys(table, "a rule", {"name", "from", "to", "transport", "allow", "allow_back", "deny"});
  rule.line = table.source().begin.line;
  rule.name = "rule " + std::to_string(number);
  if (const toml::node* name = table.get("name")) read_name(*name, rule);
  if (const toml::node* from = table.get("from")) read_side(*from, "from", rule);
  if (const toml::node* to = table.get("to")) read_side(*to, "to", rule);
  if (const toml::node* transport = table.get("transport")) {
    rule.transports = {};
    read_list(*transport, "transport", [&](const toml::node& element) {
      const std::size_t word = read_word(element, "transport", {"rc", "uc", "ud", "xrc"});
      if (word < kTransportCount) {
        rule.transports = rule.transports.with(static_cast<Transport>(word));
      }
    });
  }
  read_decision(table, rule);
}

PolicyDocument Reader::read(const toml::table& root) {
  PolicyDocument document;
  expect_keys(root, "a policy document", {"default", "require_mark", "rule"});
  if (const toml::node* decision = root.get("default")) {
    const std::size_t word = read_word(*decision, "default", {"allow", "deny"});
    document.default_decision = word == 0 ? Decision::kAllow : Decision::kDeny;
  }
  if (const toml::node* prefixes = root.get("require_mark")) {
    read_gids(*prefixes, "require_mark", document.require_mark);
  }
  const toml::node* rules = root.get("rule");
  if (!rules) return document;
  const toml::array* list = rules->as_array();
  if (!list) {
    problem(rules->source(), "found " + what_it_is(*rules) + " for rule; write [[rule]]");
    return document;
  }
  if (list->size() > kMaxRules) {
    problem(rules->source(), "found " + std::to_string(list->size()) + " rules; write at most " +
                                 std::to_string(kMaxRules));
    return document;
  }
  for (const toml::node& element : *list) {
    const toml::table* table = element.as_table();
    if (!table) {
      problem(element.source(), "found " + what_it_is(element) + " for rule; write [[rule]]");
      continue;
    }
    PolicyRule& rule = document.rules.emplace_back();
    read_rule(*table, document.rules.size(), rule);
  }
  return document;
}

}  // namespace

Result<PolicyDocument> parse_policy(std::string_view text, std::string_view document_name) {
  if (text.size() > kMaxPolicyBytes) {
    return fail(ErrorCode::kInvalid, "%.*s: found %zu bytes; write at most %zu",
                static_cast<int>(document_name.size()), document_name.data(), text.size(),
                kMaxPolicyBytes);
  }
  const std::string safe = ISTHMUS_TRY(make_safe_for_toml(text, document_name));
  const toml::parse_result parsed = toml::parse(std::string_view(safe));
  if (!parsed) {
    const toml::source_position where = parsed.error().source().begin;
    return std::unexpected(
        Error{ErrorCode::kInvalid, place_in(document_name, where.line, where.column) +
                                       "not TOML: " + std::string(parsed.error().description())});
  }
  Reader reader{document_name};
  PolicyDocument document = reader.read(parsed.table());
  if (!reader.problems().empty()) {
    return std::unexpected(Error{ErrorCode::kInvalid, reader.problems()});
  }
  return document;
}

}  // namespace isthmus::cluster
