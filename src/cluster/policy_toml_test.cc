// Goal: a document means what its author reads in it; anything else is an error with its place.
// Method: whole documents, right ones by their rules, wrong ones by the exact start of the message.
#include "cluster/policy_toml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "cluster/policy_text.h"

namespace isthmus::cluster {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

std::string error_of(std::string_view text) {
  const Result<PolicyDocument> document = parse_policy(text, "p.toml");
  if (document) return "parsed";
  EXPECT_EQ(document.error().code, ErrorCode::kInvalid);
  return document.error().message;
}

std::string rule_with(std::string_view lines) {
  return "[[rule]]\nallow = [\"connect\"]\n" + std::string(lines);
}

TEST(PolicyToml, ReadsEveryKey) {
  const Result<PolicyDocument> document = parse_policy(R"(
default = "deny"
require_mark = ["10.0.0.0/8"]
[[rule]]
name = "replicas"
from = { label = "db-*", gid = "10.0.0.0/8" }
to   = { label = ["db-*", "log"], gid = "fd00::/64", port = [7471, "8000-8100"] }
transport = ["rc", "ud"]
allow = ["connect", "read", "write", "atomic"]
[[rule]]
from.label = "web"
transport = "rc"
allow = "connect"
allow_back = ["read"]
[[rule]]
deny = true
)",
                                                       "p.toml");
  ASSERT_TRUE(document) << document.error().message;
  EXPECT_EQ(document->default_decision, Decision::kDeny);
  ASSERT_EQ(document->require_mark.size(), 1u);
  ASSERT_EQ(document->rules.size(), 3u);

  const PolicyRule& replicas = document->rules[0];
  EXPECT_EQ(replicas.name, "replicas");
  EXPECT_EQ(replicas.line, 4u);
  EXPECT_EQ(replicas.from.labels, (std::vector<std::string>{"db-*"}));
  EXPECT_EQ(replicas.from.gids, (std::vector{parse_gid_prefix("10.0.0.0/8").value()}));
  EXPECT_EQ(replicas.to.labels, (std::vector<std::string>{"db-*", "log"}));
  EXPECT_EQ(replicas.to.gids, (std::vector{parse_gid_prefix("fd00::/64").value()}));
  EXPECT_EQ(replicas.ports, (std::vector<PortRange>{{7471, 7471}, {8000, 8100}}));
  EXPECT_EQ(replicas.transports, TransportSet{}.with(Transport::kRc).with(Transport::kUd));
  EXPECT_EQ(replicas.decision, Decision::kAllow);
  EXPECT_EQ(replicas.forward, Rights::all());
  EXPECT_EQ(replicas.backward, Rights::all());

  const PolicyRule& web = document->rules[1];
  EXPECT_EQ(web.name, "rule 2");
  EXPECT_EQ(web.transports, TransportSet{}.with(Transport::kRc));
  EXPECT_EQ(web.forward, Rights::send_only());
  EXPECT_EQ(web.backward, Rights::send_only().with(Right::kRead));

  const PolicyRule& rest = document->rules[2];
  EXPECT_EQ(rest.decision, Decision::kDeny);
  EXPECT_TRUE(rest.forward.empty());
  EXPECT_EQ(rest.transports, TransportSet::all());
}

TEST(PolicyToml, ReadsTheExamplesOfTheDocumentation) {
  std::ifstream file(ISTHMUS_SOURCE_DIR "/docs/policy.md");
  const std::string page{std::istreambuf_iterator<char>(file), {}};
  int count = 0;
  const std::string_view fence = "```toml\n";
  for (std::size_t at = page.find(fence); at != std::string::npos; at = page.find(fence, at + 1)) {
    const std::size_t begin = at + fence.size();
    EXPECT_EQ(error_of(page.substr(begin, page.find("```", begin) - begin)), "parsed");
    ++count;
  }
  EXPECT_EQ(count, 2);
}

TEST(PolicyToml, EmptyDocumentAllowsAll) {
  const Result<PolicyDocument> document = parse_policy("# Nothing.\n", "p.toml");
  ASSERT_TRUE(document);
  EXPECT_FALSE(document->default_decision);
  EXPECT_EQ(document->decision_without_rule(), Decision::kAllow);
}

TEST(PolicyToml, EmptyListsAreTakenWhereTheyMeanNone) {
  const auto document =
      parse_policy("require_mark = []\n" + rule_with("allow_back = []"), "p.toml");
  ASSERT_TRUE(document) << document.error().message;
  EXPECT_TRUE(document->require_mark.empty());
  EXPECT_EQ(document->rules[0].backward, Rights::send_only());
}

TEST(PolicyToml, UnknownKeysAreErrors) {
  EXPECT_EQ(error_of("defualt = \"deny\"\n"),
            "p.toml:1:1: found key 'defualt', which a policy document does not have; write "
            "default, require_mark or rule");
  EXPECT_THAT(error_of(rule_with("form = {}\n")), StartsWith("p.toml:3:1: found key 'form'"));
  EXPECT_THAT(error_of(rule_with("to = { lable = \"a\" }\n")),
              StartsWith("p.toml:3:8: found key 'lable', which to does not have"));
  EXPECT_THAT(error_of(rule_with("from = { port = 1 }\n")), HasSubstr("write it in to"));
}

TEST(PolicyToml, WrongValuesSayWhatToWrite) {
  struct Case {
    std::string text;
    std::string_view start;
    std::string_view advice;
  };
  const Case cases[] = {
      {"default = true\n", "p.toml:1:11: found true", "write allow or deny"},
      {"default = \"reject\"\n", "p.toml:1:11: found the text 'reject'", "write allow or deny"},
      {"require_mark = 10\n", "p.toml:1:16: found the number 10", "address prefix like"},
      {"rule = 1\n", "p.toml:1:8: found the number 1", "write [[rule]]"},
      {"[rule]\ndeny = true\n", "p.toml:1:1: found a table", "write [[rule]]"},
      {"rule = [1]\n", "p.toml:1:9: found the number 1", "write [[rule]]"},
      {"[[rule]]\n", "p.toml:1:1: found no decision", "deny = true"},
      {"[[rule]]\nallow = \"connect\"\ndeny = true\n", "p.toml:1:1: found both", "deny = true"},
      {"[[rule]]\ndeny = false\n", "p.toml:2:8: found false", "write deny = true"},
      {"[[rule]]\ndeny = 1\n", "p.toml:2:8: found the number 1", "write deny = true"},
      {"[[rule]]\ndeny = true\nallow_back = \"read\"\n", "p.toml:3:14: found allow_back", "leave"},
      {"[[rule]]\nallow = [\"read\"]\n", "p.toml:2:9: found allow without \"connect\"", "add"},
      {"[[rule]]\nallow = [\"conect\"]\n", "p.toml:2:10: found the text 'conect'", "write read"},
      {"[[rule]]\nallow = [\"connect\", \"send\"]\n", "p.toml:2:21: found 'send'", "leave it out"},
      {"[[rule]]\nallow = []\n", "p.toml:2:9: found allow without \"connect\"", "deny = true"},
      {rule_with("allow_back = [\"connect\"]\n"), "p.toml:3:15: found the text 'connect'", "write"},
      {rule_with("name = \"default\"\n"), "p.toml:3:8: found the text 'default'", "another name"},
      {rule_with("name = 3\n"), "p.toml:3:8: found the number 3", "printable characters"},
      {rule_with("name = \"a\\u001b\"\n"), "p.toml:3:8: found the text 'a?'", "printable"},
      {rule_with("name = \"" + std::string(65, 'x') + "\"\n"), "p.toml:3:8: found", "1 to 64"},
      {rule_with("from = \"db-*\"\n"), "p.toml:3:8: found the text 'db-*'", "{ label ="},
      {rule_with("from = { label = \"\" }\n"), "p.toml:3:18: found the text ''", "1 to 64"},
      {rule_with("from = { label = 1979-05-27 }\n"), "p.toml:3:18: found a date", "write a label"},
      {rule_with("from = { gid = \"10.0.0.1/8\" }\n"), "p.toml:3:16: found '10.0.0.1/8'",
       "10.0.0.0/8"},
      {rule_with("from = { gid = [] }\n"), "p.toml:3:16: found an empty list", "leave gid out"},
      {rule_with("to = { port = 0 }\n"), "p.toml:3:15: found '0'", "1 to 65535"},
      {rule_with("to = { port = 65536 }\n"), "p.toml:3:15: found '65536'", "1 to 65535"},
      {rule_with("to = { port = 1.5 }\n"), "p.toml:3:15: found a number with",
       "like \"8000-8100\""},
      {rule_with("to = { port = \"9-1\" }\n"), "p.toml:3:15: found '9-1'", "write \"1-9\""},
      {rule_with("transport = \"tcp\"\n"), "p.toml:3:13: found the text 'tcp'",
       "rc, uc, ud or xrc"},
      {rule_with("transport = [[\"rc\"]]\n"), "p.toml:3:14: found a list", "rc, uc, ud or xrc"},
  };
  for (const Case& c : cases) {
    const std::string message = error_of(c.text);
    EXPECT_THAT(message, StartsWith(c.start));
    EXPECT_THAT(message, HasSubstr(c.advice));
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;  // One problem, one line.
  }
}

TEST(PolicyToml, BrokenTomlHasItsPlace) {
  EXPECT_THAT(error_of("default = \n"), StartsWith("p.toml:1:11: not TOML: "));
  EXPECT_THAT(error_of("default = \"deny\"\ndefault = \"allow\"\n"),
              StartsWith("p.toml:2:"));  // A key twice: neither may win.
  EXPECT_THAT(error_of(std::string_view("a\0b", 3)), StartsWith("p.toml:1:"));
}

TEST(PolicyToml, LettersBeyondAsciiBelongIntoComments) {
  EXPECT_EQ(error_of("# Für die Datenbank: \"'\ndefault = \"deny\"  # né\n"), "parsed");
  EXPECT_EQ(error_of("\xef\xbb\xbf"
                     "default = \"deny\"\n"),
            "parsed");                                            // A byte order mark.
  EXPECT_EQ(error_of("default = \"deny\"  # \xff\n"), "parsed");  // Not UTF-8 at all.
  EXPECT_EQ(error_of(rule_with("name = 'a # b'\nfrom.label = \"\\\"#\"\n")), "parsed");

  const std::string_view advice = "found a character beyond ASCII outside of a comment";
  EXPECT_THAT(error_of("é = 1\n"), StartsWith("p.toml:1:1: " + std::string(advice)));
  EXPECT_THAT(error_of(rule_with("name = \"é\"\n")), StartsWith("p.toml:3:9: "));
  // Not comments, for all their number signs.
  EXPECT_THAT(error_of(rule_with("name = 'a # é'\n")), HasSubstr(advice));
  EXPECT_THAT(error_of(rule_with("name = \"\\\" # é\"\n")), HasSubstr(advice));
  EXPECT_THAT(error_of(rule_with("name = '\\' é # '\n")), HasSubstr(advice));
  EXPECT_THAT(error_of(rule_with("name = \"\"\"a # é\"\"\"\n")), HasSubstr("on one line"));
  EXPECT_THAT(error_of(rule_with("name = '''a'''\n")), HasSubstr("on one line"));
}

TEST(PolicyToml, ReportsSeveralProblemsAtOnceButNotAll) {
  EXPECT_EQ(error_of("x = 1\n[[rule]]\ny = 2\ndeny = true\n"),
            "p.toml:1:1: found key 'x', which a policy document does not have; write default, "
            "require_mark or rule\n"
            "p.toml:3:1: found key 'y', which a rule does not have; write name, from, to, "
            "transport, allow, allow_back or deny");
  std::string many;
  for (int i = 0; i < 100; ++i) many += "[[rule]]\n";
  const std::string message = error_of(many);
  EXPECT_EQ(std::count(message.begin(), message.end(), '\n'), 9);
}

TEST(PolicyToml, SizesAreBounded) {
  // The largest that fits, and one more, of everything that has a bound.
  const auto rules = [](std::size_t count) {
    std::string text;
    for (std::size_t i = 0; i < count; ++i) text += "[[rule]]\ndeny=true\n";
    return text;
  };
  EXPECT_EQ(error_of(rules(kMaxRules)), "parsed");
  EXPECT_THAT(error_of(rules(kMaxRules + 1)), HasSubstr("found 1025 rules; write at most 1024"));

  const auto ports = [](std::size_t count) {
    std::string list;
    for (std::size_t i = 1; i <= count; ++i) list += std::to_string(i) + ",";
    return rule_with("to = { port = [" + list + "] }\n");
  };
  EXPECT_EQ(error_of(ports(kMaxPatternsPerList)), "parsed");
  EXPECT_THAT(error_of(ports(kMaxPatternsPerList + 1)), HasSubstr("write at most 64"));

  EXPECT_EQ(error_of(std::string(kMaxPolicyBytes, '\n')), "parsed");
  EXPECT_THAT(error_of(std::string(kMaxPolicyBytes + 1, '\n')), HasSubstr("write at most 262144"));
}

TEST(PolicyToml, DeepNestingDoesNotExhaustTheStack) {
  // Deep tables are taken apart by recursion, so each way to write one is refused or shallow.
  std::string dotted = "a";
  for (int i = 0; i < 50'000; ++i) dotted += ".a";
  EXPECT_THAT(error_of(dotted + " = 1\n"), StartsWith("p.toml:1:130: found more than 64 dots"));
  EXPECT_THAT(error_of("[" + dotted + "]\n"), HasSubstr("dots"));
  EXPECT_THAT(error_of("a = " + std::string(50'000, '[')), HasSubstr("not TOML"));
  std::string tables = "a = ";
  for (int i = 0; i < 20'000; ++i) tables += "{a=";
  EXPECT_THAT(error_of(tables), HasSubstr("not TOML"));
  // As deep as the bounds let it be: a header, and nested values on lines of their own.
  const std::string key = dotted.substr(0, 2 * 64 + 1);
  std::string deep = "[" + key + "]\n" + key + " = [\n";
  for (int i = 0; i < 3; ++i) deep += "{" + key + " = [\n";
  for (int i = 0; i < 3; ++i) deep += "]}";
  EXPECT_THAT(error_of(deep + "]\n"), HasSubstr("found key 'a'"));
  // Dots that are no keys do not count.
  std::string dots(1000, '.');
  EXPECT_EQ(error_of("# " + dots + "\n"), "parsed");
  EXPECT_EQ(error_of(rule_with("from.label = '" + dots.substr(0, 64) + "'\n")), "parsed");
}

}  // namespace
}  // namespace isthmus::cluster
