// Goal: the first rule that matches decides, an unknown never matches, and rights add up.
// Method: small documents and one query at a time; patterns against a slow matcher, exhaustively;
// the cost of evaluate() by counting allocations.
#include "cluster/policy.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

#include "cluster/policy_text.h"
#include "wire/ip.h"

namespace {

std::atomic<int> allocation_count{0};

}  // namespace

// Replaced for the whole test program, to count. Not inlined: GCC would see free() meet new.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocation_count;
  if (void* memory = std::malloc(bytes)) return memory;
  std::abort();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

namespace isthmus::cluster {
namespace {

Gid gid(std::string_view text) { return wire::IpAddress::parse(text)->bytes(); }
GidPrefix prefix(std::string_view text) { return *parse_gid_prefix(text); }

const Rights kReadOnly = Rights::send_only().with(Right::kRead);
const Rights kReadWrite = kReadOnly.with(Right::kWrite);

PolicyRule allow(std::string name, EndpointPattern from = {}, EndpointPattern to = {}) {
  PolicyRule rule;
  rule.name = std::move(name);
  rule.from = std::move(from);
  rule.to = std::move(to);
  rule.decision = Decision::kAllow;
  rule.forward = rule.backward = Rights::all();
  return rule;
}

PolicyRule deny(std::string name, EndpointPattern from = {}, EndpointPattern to = {}) {
  PolicyRule rule = allow(std::move(name), std::move(from), std::move(to));
  rule.decision = Decision::kDeny;
  rule.forward = rule.backward = Rights{};
  return rule;
}

PolicyDocument document(std::vector<PolicyRule> rules, Decision rest = Decision::kDeny) {
  return {.rules = std::move(rules), .default_decision = rest, .require_mark = {}};
}

ConnectionQuery between(std::string_view from, std::string_view to) {
  ConnectionQuery query;
  query.from = {.label = from, .gid = gid("10.0.0.1")};
  query.to = {.label = to, .gid = gid("10.0.0.2")};
  query.port = 7471;
  return query;
}

TEST(Policy, DefaultDecidesWhereNoRuleDoes) {
  // Nothing written. Expect: all is allowed, as a private daemon needs it.
  const PolicyDocument open = PolicyDocument::allow_all();
  PolicyVerdict verdict = open.evaluate(between("a", "b"));
  EXPECT_TRUE(verdict.allowed());
  EXPECT_EQ(verdict.forward, Rights::all());
  EXPECT_EQ(verdict.backward, Rights::all());
  EXPECT_EQ(verdict.rule, "default");

  const PolicyDocument closed = document({});
  verdict = closed.evaluate(between("a", "b"));
  EXPECT_FALSE(verdict.allowed());
  EXPECT_TRUE(verdict.forward.empty());
  EXPECT_TRUE(verdict.backward.empty());
  EXPECT_EQ(verdict.rule, "default");
}

TEST(Policy, FirstMatchWins) {
  const PolicyRule some = deny("some", {.labels = {"db-1"}, .gids = {}});
  const PolicyRule all = allow("all", {.labels = {"db-*"}, .gids = {}});

  const PolicyDocument narrow_first = document({some, all});
  EXPECT_EQ(narrow_first.evaluate(between("db-1", "x")).rule, "some");
  EXPECT_EQ(narrow_first.evaluate(between("db-2", "x")).rule, "all");
  EXPECT_EQ(narrow_first.evaluate(between("web", "x")).rule, "default");

  const PolicyDocument wide_first = document({all, some});
  EXPECT_EQ(wide_first.evaluate(between("db-1", "x")).rule, "all");
}

TEST(Policy, EachThingAskedForMustMatch) {
  PolicyRule rule = allow("exact", {.labels = {"a"}, .gids = {prefix("10.0.0.1")}},
                          {.labels = {"b", "c"}, .gids = {prefix("10.0.0.0/24")}});
  rule.ports = {{7471, 7471}, {8000, 8100}};
  rule.transports = TransportSet{}.with(Transport::kRc).with(Transport::kUd);
  const PolicyDocument policy = document({rule});
  const ConnectionQuery exact = between("a", "b");
  EXPECT_TRUE(policy.evaluate(exact).allowed());

  const auto changed = [&](auto change) {
    ConnectionQuery query = exact;
    change(query);
    return policy.evaluate(query).allowed();
  };
  EXPECT_TRUE(changed([](ConnectionQuery& q) { q.to.label = "c"; }));
  EXPECT_TRUE(changed([](ConnectionQuery& q) { q.transport = Transport::kUd; }));
  EXPECT_TRUE(changed([](ConnectionQuery& q) { q.port = 8000; }));
  EXPECT_TRUE(changed([](ConnectionQuery& q) { q.port = 8100; }));
  EXPECT_TRUE(changed([](ConnectionQuery& q) { q.to.gid = gid("10.0.0.255"); }));

  EXPECT_FALSE(changed([](ConnectionQuery& q) { q.from.label = "b"; }));
  EXPECT_FALSE(changed([](ConnectionQuery& q) { q.to.label = "d"; }));
  EXPECT_FALSE(changed([](ConnectionQuery& q) { q.from.gid = gid("10.0.0.2"); }));
  EXPECT_FALSE(changed([](ConnectionQuery& q) { q.to.gid = gid("10.0.1.0"); }));
  EXPECT_FALSE(changed([](ConnectionQuery& q) { q.to.gid = gid("::1"); }));
  EXPECT_FALSE(changed([](ConnectionQuery& q) { q.transport = Transport::kUc; }));
  EXPECT_FALSE(changed([](ConnectionQuery& q) { q.transport = Transport::kXrc; }));
  for (const std::uint16_t port : {7470, 7472, 7999, 8101}) {
    EXPECT_FALSE(changed([&](ConnectionQuery& q) { q.port = port; })) << port;
  }
}

TEST(Policy, UnknownMatchesNoPattern) {
  PolicyRule by_port = allow("port");
  by_port.ports = {{1, 65535}};
  const PolicyDocument policy =
      document({allow("label", {.labels = {"*"}, .gids = {}}),
                allow("gid", {}, {.labels = {}, .gids = {prefix("::/0")}}), by_port});
  // Expect: even the widest pattern asks for something known.
  ConnectionQuery query = between("a", "b");
  EXPECT_EQ(policy.evaluate(query).rule, "label");
  query.from.label.reset();
  EXPECT_EQ(policy.evaluate(query).rule, "gid");
  query.to.gid.reset();
  EXPECT_EQ(policy.evaluate(query).rule, "port");
  query.port.reset();
  EXPECT_EQ(policy.evaluate(query).rule, "default");
  // The empty label is known; so is the address of all zeros.
  query.from.label = "";
  EXPECT_EQ(policy.evaluate(query).rule, "label");
}

TEST(Policy, RightsFollowTheDirectionOfTheRule) {
  PolicyRule rule = allow("read-only", {.labels = {"client"}, .gids = {}});
  rule.forward = kReadOnly;
  rule.backward = Rights::send_only();
  const PolicyDocument policy = document({rule});
  const PolicyVerdict verdict = policy.evaluate(between("client", "server"));
  EXPECT_EQ(verdict.forward, kReadOnly);
  EXPECT_EQ(verdict.backward, Rights::send_only());
  // The server asks: another connection, and no rule for it.
  EXPECT_FALSE(policy.evaluate(between("server", "client")).allowed());
}

TEST(Policy, MarkIsAskedOfWhatArrivesFromListedPeers) {
  PolicyDocument policy = PolicyDocument::allow_all();
  policy.require_mark = {prefix("10.0.0.1")};  // The one that is `from` below.

  struct Case {
    Direction direction;
    Mark mark;
    std::string_view rule;
  };
  const Case cases[] = {
      {Direction::kRequestIn, Mark::kAbsent, "require_mark"},
      {Direction::kRequestIn, Mark::kPresent, "default"},
      {Direction::kRequestOut, Mark::kAbsent, "default"},
      {Direction::kReplyOut, Mark::kAbsent, "default"},
      {Direction::kReplyIn, Mark::kAbsent, "default"},  // `to` sends it, and is not in the list.
  };
  for (const Case& c : cases) {
    ConnectionQuery query = between("a", "b");
    query.direction = c.direction;
    query.mark = c.mark;
    EXPECT_EQ(policy.evaluate(query).rule, c.rule) << static_cast<int>(c.direction);
    EXPECT_EQ(policy.evaluate(query).allowed(), c.rule == "default");
  }

  policy.require_mark = {prefix("10.0.0.2")};  // The one that is `to`.
  ConnectionQuery query = between("a", "b");
  for (const Direction direction : {Direction::kReplyIn, Direction::kWithoutCm}) {
    query.direction = direction;
    query.mark = Mark::kAbsent;
    EXPECT_EQ(policy.evaluate(query).rule, "require_mark");
    query.mark = Mark::kPresent;
    EXPECT_EQ(policy.evaluate(query).rule, "default");
  }
  // A sender without an address cannot show that it is outside of the list.
  query.direction = Direction::kReplyIn;
  query.mark = Mark::kAbsent;
  query.to.gid.reset();
  EXPECT_EQ(policy.evaluate(query).rule, "require_mark");
  EXPECT_TRUE(PolicyDocument::allow_all().evaluate(query).allowed());
}

TEST(Policy, MarkComesBeforeTheRulesAndReplacesNone) {
  PolicyDocument policy = document({deny("no", {.labels = {"a"}, .gids = {}})}, Decision::kAllow);
  policy.require_mark = {prefix("10.0.0.0/8")};
  ConnectionQuery query = between("a", "b");
  query.direction = Direction::kRequestIn;
  query.mark = Mark::kPresent;
  EXPECT_EQ(policy.evaluate(query).rule, "no");  // Marked by its own host, denied by this one.
}

TEST(Policy, WithoutCmEitherSideMayBeTheOneThatAsks) {
  PolicyRule rule =
      allow("clients", {.labels = {"client-*"}, .gids = {}}, {.labels = {"server"}, .gids = {}});
  rule.forward = kReadWrite;
  rule.backward = kReadOnly;
  const PolicyDocument policy = document({rule});
  ConnectionQuery query = between("server", "client-1");
  EXPECT_FALSE(policy.evaluate(query).allowed());

  // Expect: the rule matches turned round, and its rights turn with it.
  query.direction = Direction::kWithoutCm;
  PolicyVerdict verdict = policy.evaluate(query);
  EXPECT_TRUE(verdict.allowed());
  EXPECT_EQ(verdict.forward, kReadOnly);
  EXPECT_EQ(verdict.backward, kReadWrite);

  // Both ways match. Expect: what both ways grant.
  rule.from = rule.to = {};
  verdict = document({rule}).evaluate(query);
  EXPECT_EQ(verdict.forward, kReadOnly);
  EXPECT_EQ(verdict.backward, kReadOnly);

  // A deny rule is not evaded by being the side that nobody asked.
  const PolicyDocument denies = document(
      {deny("guests", {.labels = {"client-*"}, .gids = {}}, {.labels = {"server"}, .gids = {}})},
      Decision::kAllow);
  EXPECT_EQ(denies.evaluate(query).rule, "guests");
}

TEST(Policy, EvaluateDoesNotAllocate) {
  std::vector<PolicyRule> rules;
  for (int i = 0; i < 100; ++i) {
    rules.push_back(allow("a rule with a name too long for a small string",
                          {.labels = {"no-*-label", "none?"}, .gids = {}},
                          {.labels = {}, .gids = {prefix("fd00::/64")}}));
  }
  const PolicyDocument policy = document(rules);
  ConnectionQuery query =
      between("a label too long for a small string", "another such label, long");
  query.direction = Direction::kWithoutCm;
  const int before = allocation_count;
  const PolicyVerdict verdict = policy.evaluate(query);
  EXPECT_EQ(allocation_count, before);
  EXPECT_EQ(verdict.rule, "default");
}

TEST(Policy, DiffTellsWhoLosesWhat) {
  PolicyRule all = allow("all");
  PolicyRule fewer = allow("fewer");
  fewer.forward = kReadWrite;
  fewer.backward = kReadOnly;
  const PolicyDocument before = document({all});
  const PolicyDocument after = document({deny("gone", {.labels = {"old"}, .gids = {}}),
                                         allow("kept", {.labels = {"admin"}, .gids = {}}), fewer});
  const std::vector<LiveConnection> live = {
      {1, between("old", "b")}, {2, between("admin", "b")}, {3, between("a", "b")}};

  const std::vector<PolicyLoss> losses = diff(before, after, live);
  ASSERT_EQ(losses.size(), 2u);
  EXPECT_EQ(losses[0].id, 1u);
  EXPECT_FALSE(losses[0].after.allowed());
  EXPECT_EQ(losses[0].after.rule, "gone");
  EXPECT_EQ(losses[0].forward_lost, Rights::all());
  EXPECT_EQ(losses[0].backward_lost, Rights::all());
  EXPECT_EQ(losses[1].id, 3u);
  EXPECT_TRUE(losses[1].after.allowed());
  EXPECT_EQ(to_string(losses[1].forward_lost), "atomic");
  EXPECT_EQ(to_string(losses[1].backward_lost), "write atomic");

  // A loss of one side alone is a loss.
  PolicyRule one_way = all;
  one_way.backward = kReadOnly;
  const PolicyDocument narrowed = document({one_way});
  const std::vector<PolicyLoss> one_loss = diff(before, narrowed, std::span(live).first(1));
  ASSERT_EQ(one_loss.size(), 1u);
  EXPECT_TRUE(one_loss[0].forward_lost.empty());
  EXPECT_EQ(to_string(one_loss[0].backward_lost), "write atomic");

  // The other way round everybody gains, and nothing is lost by staying.
  EXPECT_TRUE(diff(after, before, live).empty());
  EXPECT_TRUE(diff(before, before, live).empty());
}

// A matcher that is plainly right, and slow.
bool slowly_matches(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern[0] == '*') {
    return slowly_matches(pattern.substr(1), text) ||
           (!text.empty() && slowly_matches(pattern, text.substr(1)));
  }
  return !text.empty() && (pattern[0] == '?' || pattern[0] == text[0]) &&
         slowly_matches(pattern.substr(1), text.substr(1));
}

// Every text of up to `length` of these letters.
std::vector<std::string> texts_of(std::string_view letters, std::size_t length) {
  std::vector<std::string> texts{""};
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (texts[i].size() == length) continue;
    for (char c : letters) texts.push_back(texts[i] + c);
  }
  return texts;
}

TEST(Label, MatchesAsTheSlowMatcherDoes) {
  const std::vector<std::string> texts = texts_of("ab", 5);
  int matched = 0;
  for (const std::string& pattern : texts_of("ab*?", 4)) {
    for (const std::string& text : texts) {
      const bool expected = slowly_matches(pattern, text);
      matched += expected;
      ASSERT_EQ(label_matches(pattern, text), expected) << pattern << " " << text;
    }
  }
  EXPECT_GT(matched, 1000);
}

TEST(Label, CoversOnlyWhatItMatches) {
  const std::vector<std::string> patterns = texts_of("ab*?", 3);
  const std::vector<std::string> texts = texts_of("ab", 4);
  for (const std::string& wide : patterns) {
    EXPECT_TRUE(label_covers(wide, wide)) << wide;
    EXPECT_TRUE(label_covers("*", wide)) << wide;
    for (const std::string& narrow : patterns) {
      if (!label_covers(wide, narrow)) continue;
      for (const std::string& text : texts) {
        ASSERT_TRUE(!slowly_matches(narrow, text) || slowly_matches(wide, text))
            << wide << " " << narrow << " " << text;
      }
    }
  }
  EXPECT_TRUE(label_covers("db-*", "db-*-x?"));
  EXPECT_FALSE(label_covers("db-?", "db-*"));
}

TEST(Label, StaysFastOnAHostileLabel) {
  const std::string pattern = "*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b";
  const std::string label(100'000, 'a');
  EXPECT_FALSE(label_matches(pattern, label));  // Exponential in a matcher that tries all stars.
}

TEST(GidPrefix, AgreesWithComparingBitByBit) {
  const Gid address = gid("a5a5:5a5a:1234:ffff:8001:7ffe:c3c3:3c3c");
  for (unsigned bits = 0; bits <= kGidBits; ++bits) {
    const GidPrefix whole{address, static_cast<std::uint8_t>(bits)};
    for (unsigned flipped = 0; flipped < kGidBits; ++flipped) {
      Gid other = address;
      other[flipped / 8] ^= static_cast<std::byte>(0x80u >> flipped % 8);
      ASSERT_EQ(whole.contains(other), flipped >= bits) << bits << " " << flipped;
    }
  }
}

TEST(GidPrefix, CoversWhatIsLongerAndInside) {
  EXPECT_TRUE(prefix("10.0.0.0/8").covers(prefix("10.1.0.0/16")));
  EXPECT_TRUE(prefix("10.0.0.0/8").covers(prefix("10.0.0.0/8")));
  EXPECT_TRUE(prefix("::/0").covers(prefix("10.0.0.0/8")));
  EXPECT_FALSE(prefix("10.1.0.0/16").covers(prefix("10.0.0.0/8")));
  EXPECT_FALSE(prefix("10.0.0.0/16").covers(prefix("10.0.0.0/8")));  // Same first address.
  EXPECT_FALSE(prefix("10.0.0.0/8").covers(prefix("11.0.0.0/16")));
}

TEST(Rights, HaveNames) {
  EXPECT_EQ(to_string(Rights::all()), "send read write atomic");
  EXPECT_EQ(to_string(Rights{}), "nothing");
}

}  // namespace
}  // namespace isthmus::cluster
