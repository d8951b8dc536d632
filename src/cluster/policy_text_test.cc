// Goal: prefixes and ports mean what they say, and a wrong one is told what to write.
// Method: exact, extreme and malformed texts; what a document says comes back from its own text.
#include "cluster/policy_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cluster/policy_toml.h"

namespace isthmus::cluster {
namespace {

using testing::HasSubstr;

TEST(GidPrefixText, ReadsAndWritesBothFamilies) {
  struct Case {
    std::string_view text;
    int bits;
    std::string_view written;
  };
  const Case cases[] = {
      {"10.0.0.0/8", 104, "10.0.0.0/8"},  {"10.1.2.3", 128, "10.1.2.3"},
      {"10.1.2.3/32", 128, "10.1.2.3"},   {"0.0.0.0/0", 96, "0.0.0.0/0"},
      {"128.0.0.0/1", 97, "128.0.0.0/1"}, {"::ffff:10.0.0.0/104", 104, "10.0.0.0/8"},
      {"fd00::/64", 64, "fd00::/64"},     {"fd00:0:0:0::/64", 64, "fd00::/64"},
      {"fe80::1", 128, "fe80::1"},        {"::/0", 0, "::/0"},
      {"::ffff:0:0/95", -1, ""},  // The last bit of ffff is after the prefix.
  };
  for (const Case& c : cases) {
    const Result<GidPrefix> prefix = parse_gid_prefix(c.text);
    ASSERT_EQ(prefix.has_value(), c.bits >= 0) << c.text;
    if (!prefix) continue;
    EXPECT_EQ(prefix->bits, c.bits) << c.text;
    EXPECT_EQ(to_string(*prefix), c.written);
    EXPECT_EQ(parse_gid_prefix(to_string(*prefix)).value(), *prefix);
  }
}

TEST(GidPrefixText, SaysWhatToWriteInstead) {
  struct Case {
    std::string_view text;
    std::string_view advice;
  };
  const Case cases[] = {
      {"", "write one like"},
      {"10.0.0", "write one like"},
      {"example.org", "write one like"},
      {"10.0.0.0/33", "not 0 to 32"},
      {"fd00::/129", "not 0 to 128"},
      {"10.0.0.0/", "not 0 to 32"},
      {"10.0.0.0/-1", "not 0 to 32"},
      {"10.0.0.0/8x", "not 0 to 32"},
      {"10.0.0.0/4294967304", "not 0 to 32"},
      {"10.0.0.1/8", "write \"10.0.0.0/8\" for the network or \"10.0.0.1\""},
      {"fd00::1/64", "write \"fd00::/64\" for the network or \"fd00::1\""},
  };
  for (const Case& c : cases) {
    const Result<GidPrefix> prefix = parse_gid_prefix(c.text);
    ASSERT_FALSE(prefix) << c.text;
    EXPECT_EQ(prefix.error().code, ErrorCode::kInvalid);
    EXPECT_THAT(prefix.error().message, HasSubstr(c.advice)) << c.text;
  }
}

TEST(PortRangeText, ReadsOnePortOrARange) {
  EXPECT_EQ(parse_port_range("7471").value(), (PortRange{7471, 7471}));
  EXPECT_EQ(parse_port_range("1-65535").value(), (PortRange{1, 65535}));
  EXPECT_EQ(parse_port_range("5-5").value(), (PortRange{5, 5}));
  EXPECT_EQ(to_string(PortRange{5, 5}), "5");
  EXPECT_EQ(to_string(PortRange{8000, 8100}), "8000-8100");
  for (std::string_view text : {"", "0", "65536", "-1", "1-", "-", "1-65536", "0-5", "1-2-3", "a",
                                " 1", "1 ", "+1", "99999999999999999999"}) {
    const Result<PortRange> range = parse_port_range(text);
    ASSERT_FALSE(range) << text;
    EXPECT_THAT(range.error().message, HasSubstr("write a port from 1 to 65535")) << text;
  }
  EXPECT_THAT(parse_port_range("9-8").error().message, HasSubstr("write \"8-9\""));
}

TEST(InQuotes, ShortensAndDisarms) {
  EXPECT_EQ(in_quotes("db-1"), "'db-1'");
  EXPECT_EQ(in_quotes("a\x1b[2J\n"), "'a?[2J?'");
  EXPECT_EQ(in_quotes(std::string(1000, 'x')).size(), 85u);
}

TEST(FormatPolicy, WritesWhatParsesBackToTheSame) {
  const std::string text =
      "default = \"deny\"\n"
      "require_mark = [\"10.0.0.0/8\", \"fd00::/64\"]\n"
      "\n"
      "[[rule]]\n"
      "name = \"a \\\"b\\\" \\\\ c\"\n"
      "from = { label = [\"db-*\", \"x?\"], gid = [\"10.0.0.0/8\"] }\n"
      "to = { gid = [\"fd00::1\"], port = [7471, \"8000-8100\"] }\n"
      "transport = [\"rc\", \"xrc\"]\n"
      "allow = [\"connect\", \"read\", \"write\"]\n"
      "allow_back = [\"atomic\"]\n"
      "\n"
      "[[rule]]\n"
      "name = \"rest\"\n"
      "deny = true\n"
      "\n"
      "[[rule]]\n"
      "name = \"one way\"\n"
      "allow = [\"connect\", \"read\"]\n"
      "allow_back = []\n";
  const Result<PolicyDocument> document = parse_policy(text, "a.toml");
  ASSERT_TRUE(document) << document.error().message;
  EXPECT_EQ(format_policy(*document), text);
  EXPECT_EQ(format_policy(PolicyDocument::allow_all()), "");
}

}  // namespace
}  // namespace isthmus::cluster
