// Goal: addresses of memory nodes mean what people write, and nonsense is refused.
// Method: a list of each.
#include "farmem/node_address.h"

#include <gtest/gtest.h>

namespace isthmus::farmem {
namespace {

TEST(NodeAddress, TakesWhatPeopleWrite) {
  const std::vector<std::pair<const char*, NodeAddress>> cases{
      {"10.0.0.1", {"10.0.0.1", 7471}},   {"10.0.0.1:1", {"10.0.0.1", 1}},
      {"host:65535", {"host", 65535}},    {"fe80::1", {"fe80::1", 7471}},
      {"[fd00::1]:80", {"fd00::1", 80}},  {"[fd00::1]", {"fd00::1", 7471}}};
  for (const auto& [text, expected] : cases) {
    const auto parsed = parse_node_address(text);
    ASSERT_TRUE(parsed) << text;
    EXPECT_EQ(*parsed, expected) << text;
    EXPECT_EQ(*parse_node_address(parsed->text()), expected) << text;
  }
  EXPECT_EQ(parse_node_addresses("a,b:2,[::1]:3")->size(), 3u);
}

TEST(NodeAddress, RefusesTheRest) {
  for (const char* text : {"", ":1", "host:", "host:0", "host:65536", "host:x", "host:1x", "[::1",
                           "[::1]1", "[]:1"}) {
    EXPECT_FALSE(parse_node_address(text)) << text;
  }
  for (const char* text : {"", "a,", ",a", "a,,b", "a,b:0"}) {
    EXPECT_FALSE(parse_node_addresses(text)) << text;
  }
}

}  // namespace
}  // namespace isthmus::farmem
