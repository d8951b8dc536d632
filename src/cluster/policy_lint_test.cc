// Goal: each lint appears where it should and nowhere else; "never reached" is never wrong.
// Method: documents of two rules; then random documents, whose unreachable rules no query reaches.
#include "cluster/policy_lint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>

#include "cluster/policy_text.h"
#include "cluster/policy_toml.h"
#include "wire/ip.h"

namespace isthmus::cluster {
namespace {

using testing::HasSubstr;

// The lints of a document, one a line; those without a line begin with 0.
std::string lints_of(std::string_view text) {
  const Result<PolicyDocument> document = parse_policy(text, "p.toml");
  if (!document) return document.error().message;
  std::string found;
  for (const PolicyLint& lint : lint(*document)) {
    found += std::to_string(lint.line) + ": " + lint.text + "\n";
  }
  return found;
}

std::string two_rules(std::string_view first, std::string_view second) {
  return "default = \"deny\"\n[[rule]]\nname = \"first\"\n" + std::string(first) +
         "\n[[rule]]\nname = \"second\"\n" + std::string(second) + "\n";
}

TEST(PolicyLint, SaysThatADefaultIsMissing) {
  EXPECT_THAT(lints_of(""), HasSubstr("0: no default is written"));
  EXPECT_EQ(lints_of("default = \"allow\"\n"), "");
  EXPECT_EQ(lints_of("default = \"deny\"\n"), "");
}

TEST(PolicyLint, FindsARuleThatAnEarlierOneHides) {
  const std::string connect = "allow = \"connect\"\n";
  EXPECT_EQ(lints_of(two_rules("deny = true", connect)),
            "5: rule 'second' is never reached: 'first' (line 2) matches all that it matches; "
            "move it up or delete it\n");
  const std::pair<std::string_view, std::string_view> hidden[] = {
      {"from = { label = \"db-*\" }", "from = { label = [\"db-1\", \"db-??\"] }"},
      {"to = { gid = \"10.0.0.0/8\" }", "to = { gid = \"10.1.0.0/16\", label = \"a\" }"},
      {"to = { port = \"1-100\" }", "to = { port = [1, \"90-100\"] }"},
      {"transport = [\"rc\", \"ud\"]", "transport = \"ud\""},
  };
  const auto with = [&](std::string_view pattern) { return std::string(pattern) + "\n" + connect; };
  for (const auto& [wide, narrow] : hidden) {
    EXPECT_THAT(lints_of(two_rules(with(wide), with(narrow))), HasSubstr("is never reached"));
    // The other way round the second rule still has something left.
    EXPECT_EQ(lints_of(two_rules(with(narrow), with(wide))), "");
    // A side without a pattern is not hidden by one with a pattern.
    EXPECT_EQ(lints_of(two_rules(with(wide), with(""))), "");
  }
  EXPECT_EQ(lints_of(two_rules(with("from = { label = \"a\" }"), with("to = { label = \"a\" }"))),
            "");
}

TEST(PolicyLint, FindsNamesUsedTwice) {
  EXPECT_THAT(lints_of("default = \"deny\"\n"
                       "[[rule]]\nname = \"a\"\nfrom = { label = \"x\" }\nallow = \"connect\"\n"
                       "[[rule]]\nname = \"a\"\nfrom = { label = \"y\" }\nallow = \"connect\"\n"),
              HasSubstr("6: rule 'a' has the name of another rule (line 2)"));
}

TEST(PolicyLint, FindsRightsThatTheTransportDoesNotHave) {
  const auto rule = [](std::string_view transport, std::string_view right) {
    return "default = \"deny\"\n[[rule]]\nname = \"a\"\ntransport = " + std::string(transport) +
           "\nallow = [\"connect\", \"" + std::string(right) + "\"]\n";
  };
  EXPECT_THAT(lints_of(rule("\"ud\"", "write")), HasSubstr("grants write, which none"));
  EXPECT_THAT(lints_of(rule("\"uc\"", "read")), HasSubstr("grants read, which none"));
  EXPECT_THAT(lints_of(rule("[\"uc\", \"ud\"]", "atomic")), HasSubstr("grants atomic"));
  EXPECT_EQ(lints_of(rule("\"uc\"", "write")), "");
  EXPECT_EQ(lints_of(rule("[\"ud\", \"rc\"]", "atomic")), "");
  EXPECT_EQ(lints_of(rule("\"xrc\"", "atomic")), "");
}

TEST(PolicyLint, FindsADenyRuleThatTheUnknownPasses) {
  const std::string by_label = "[[rule]]\nname = \"a\"\nfrom = { label = \"x\" }\ndeny = true\n";
  const std::string by_port = "[[rule]]\nname = \"a\"\nto = { port = 1 }\ndeny = true\n";
  const std::string rest = "[[rule]]\nname = \"rest\"\ndeny = true\n";
  EXPECT_THAT(lints_of("default = \"allow\"\n" + by_label), HasSubstr("denies by label"));
  EXPECT_THAT(lints_of("default = \"allow\"\n" + by_port), HasSubstr("denies by port"));
  // A later rule that asks for a port as well, or that allows, does not stop what passes.
  const std::string all_ports =
      "[[rule]]\nname = \"b\"\nto = { port = \"1-65535\" }\ndeny = true\n";
  const std::string open = "[[rule]]\nname = \"c\"\nallow = \"connect\"\n";
  EXPECT_THAT(lints_of("default = \"allow\"\n" + by_port + all_ports),
              HasSubstr("rule 'a' denies by port"));
  EXPECT_THAT(lints_of("default = \"allow\"\n" + by_port + open), HasSubstr("denies by port"));
  // Expect: silence where what passes is denied after all.
  EXPECT_EQ(lints_of("default = \"deny\"\n" + by_label), "");
  EXPECT_EQ(lints_of("default = \"allow\"\n" + by_label + rest), "");
  EXPECT_EQ(lints_of("default = \"allow\"\n[[rule]]\nfrom = { gid = \"10.0.0.1\" }\ndeny = true\n"),
            "");
}

TEST(PolicyLint, FindsARuleForTwoHostsThatOnlyOneHostCanMatch) {
  const auto rule = [](std::string_view from, std::string_view to) {
    return "default = \"deny\"\n[[rule]]\nname = \"a\"\nallow = \"connect\"\nfrom = { " +
           std::string(from) + " }\nto = { " + std::string(to) + " }\n";
  };
  EXPECT_THAT(lints_of(rule("label = \"x\"", "label = \"y\", gid = \"10.0.0.0/8\"")),
              HasSubstr("2: rule 'a' asks for the labels of both sides"));
  EXPECT_THAT(lints_of(rule("label = \"x\", gid = \"10.0.0.0/8\"", "label = \"y\"")),
              HasSubstr("labels of both sides"));
  EXPECT_EQ(lints_of(rule("label = \"x\"", "label = \"y\"")), "");
  EXPECT_EQ(lints_of(rule("label = \"x\"", "gid = \"10.0.0.0/8\"")), "");
}

template <class T>
const T& any_of(std::mt19937& random, const std::vector<T>& choices) {
  return choices[random() % choices.size()];
}

// A small world, so that rules often hide each other.
PolicyRule random_rule(std::mt19937& random, int number) {
  static const std::vector<std::string> labels = {"*", "a*", "ab", "?b", "b"};
  static const std::vector<std::string> prefixes = {"::/0", "10.0.0.0/8", "10.0.0.1", "fd00::/64"};
  PolicyRule rule;
  rule.name = std::to_string(number);
  rule.decision = Decision::kDeny;
  for (EndpointPattern* side : {&rule.from, &rule.to}) {
    for (unsigned i = random() % 3; i > 0; --i) side->labels.push_back(any_of(random, labels));
    for (unsigned i = random() % 3; i > 0; --i) {
      side->gids.push_back(parse_gid_prefix(any_of(random, prefixes)).value());
    }
  }
  if (random() % 2 == 0) rule.ports = {{1, static_cast<std::uint16_t>(1 + random() % 3)}};
  if (random() % 2 == 0) rule.transports = TransportSet{}.with(Transport::kRc);
  return rule;
}

Endpoint random_endpoint(std::mt19937& random) {
  static const std::vector<std::string> labels = {"a", "ab", "bb", "b", ""};
  static const std::vector<std::string> addresses = {"10.0.0.1", "10.0.0.2", "fd00::1", "::"};
  Endpoint endpoint;
  if (random() % 4 != 0) endpoint.label = any_of(random, labels);
  if (random() % 4 != 0) {
    endpoint.gid = wire::IpAddress::parse(any_of(random, addresses))->bytes();
  }
  return endpoint;
}

TEST(PolicyLint, NoQueryReachesARuleCalledUnreachable) {
  std::mt19937 random{20260131};
  int unreachable_count = 0;
  for (int round = 0; round < 200; ++round) {
    PolicyDocument document{.rules = {}, .default_decision = Decision::kDeny, .require_mark = {}};
    for (int i = 0; i < 8; ++i) document.rules.push_back(random_rule(random, i));
    std::string unreachable = " ";
    for (const PolicyLint& found : lint(document)) {
      if (found.text.find("never reached") == std::string::npos) continue;
      unreachable += found.text.substr(found.text.find('\'') + 1, 1) + " ";
      ++unreachable_count;
    }
    for (int i = 0; i < 300; ++i) {
      ConnectionQuery query{.from = random_endpoint(random), .to = random_endpoint(random)};
      if (random() % 4 != 0) query.port = static_cast<std::uint16_t>(1 + random() % 4);
      query.transport = random() % 2 == 0 ? Transport::kRc : Transport::kUd;
      query.direction = random() % 2 == 0 ? Direction::kRequestOut : Direction::kWithoutCm;
      const std::string_view rule = document.evaluate(query).rule;
      if (rule == kDefaultName) continue;
      ASSERT_EQ(unreachable.find(" " + std::string(rule) + " "), std::string::npos)
          << format_policy(document);
    }
  }
  EXPECT_GT(unreachable_count, 50);
}

}  // namespace
}  // namespace isthmus::cluster
