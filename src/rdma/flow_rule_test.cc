// Goal: a rule gets its frames and no others, and no frame is read past its end.
// Method: frames built by hand, each cut at every length; rules made from fields of frames.
#include "rdma/flow_rule.h"

#include <gtest/gtest.h>

#include <vector>

namespace isthmus::rdma {
namespace {

using Frame = std::vector<std::byte>;

constexpr std::byte kAll{0xff};

void append(Frame& frame, std::initializer_list<int> bytes) {
  for (const int value : bytes) frame.push_back(static_cast<std::byte>(value));
}

Frame ethernet(std::initializer_list<int> type_and_tags) {
  Frame frame;
  append(frame, {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2});
  append(frame, type_and_tags);
  return frame;
}

// 10.0.0.1 to 10.0.0.2, `protocol`, ports 0x1234 to 0x5678 behind `option_words` of options.
Frame ipv4(int protocol, int option_words = 0, int fragment_offset = 0,
           std::initializer_list<int> type = {0x08, 0x00}) {
  Frame frame = ethernet(type);
  append(frame, {0x45 + option_words, 0xb8, 0, 40, 0, 0, 0, fragment_offset, 64, protocol, 0, 0});
  append(frame, {10, 0, 0, 1, 10, 0, 0, 2});
  for (int i = 0; i < option_words; ++i) append(frame, {1, 1, 1, 1});
  append(frame, {0x12, 0x34, 0x56, 0x78, 0, 8, 0, 0});
  return frame;
}

// `extensions` with a first header of kind `next`.
Frame ipv6(int next, std::initializer_list<int> extensions = {}) {
  Frame frame = ethernet({0x86, 0xdd});
  append(frame, {0x6b, 0x8a, 0xbc, 0xde, 0, 8, next, 63});
  for (int i = 0; i < 32; ++i) append(frame, {i});
  append(frame, extensions);
  append(frame, {0x12, 0x34, 0x56, 0x78, 0, 8, 0, 0});
  return frame;
}

// Matches frames whose field is that of `frame`.
template <class Field>
FlowRule rule_for(const Frame& frame, Field FlowFields::*field) {
  FlowRule rule;
  rule.value.*field = flow_fields_of(frame).*field;
  if constexpr (std::is_same_v<Field, std::byte>) {
    rule.mask.*field = kAll;
  } else {
    (rule.mask.*field).fill(kAll);
  }
  return rule;
}

TEST(FlowFields, ReadIpv4AndPorts) {
  const FlowFields fields = flow_fields_of(ipv4(17));
  EXPECT_EQ(fields.ip_version, std::byte{4});
  EXPECT_EQ(fields.traffic_class, std::byte{0xb8});
  EXPECT_EQ(fields.hop_limit, std::byte{64});
  EXPECT_EQ(fields.src_ip[3], std::byte{1});
  EXPECT_EQ(fields.dst_ip[3], std::byte{2});
  EXPECT_EQ(fields.transport, std::byte{17});
  EXPECT_EQ(fields.src_port, (FlowFields::Bytes<2>{std::byte{0x12}, std::byte{0x34}}));
  EXPECT_EQ(fields.dst_port, (FlowFields::Bytes<2>{std::byte{0x56}, std::byte{0x78}}));
}

TEST(FlowFields, FindPortsBehindOptions) {
  EXPECT_EQ(flow_fields_of(ipv4(6, 3)).dst_port, flow_fields_of(ipv4(6)).dst_port);
}

TEST(FlowFields, LaterFragmentHasNoPorts) {
  const FlowFields fields = flow_fields_of(ipv4(17, 0, 1));
  EXPECT_EQ(fields.protocol, std::byte{17});
  EXPECT_EQ(fields.transport, std::byte{0});
  EXPECT_EQ(fields.dst_port, FlowFields{}.dst_port);
}

TEST(FlowFields, ReadIpv6BehindExtensions) {
  const FlowFields plain = flow_fields_of(ipv6(6));
  EXPECT_EQ(plain.traffic_class, std::byte{0xb8});
  EXPECT_EQ(plain.flow_label[1], std::byte{0x0a});
  EXPECT_EQ(plain.transport, std::byte{6});
  // Hop-by-hop options of 16 bytes, then the first fragment of TCP.
  const FlowFields extended = flow_fields_of(
      ipv6(0, {44, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 1, 0, 0, 0, 9}));
  EXPECT_EQ(extended, plain);
  // A later fragment: the same protocol, no ports.
  const FlowFields later = flow_fields_of(ipv6(44, {6, 0, 0, 9, 0, 0, 0, 9}));
  EXPECT_EQ(later.protocol, std::byte{6});
  EXPECT_EQ(later.transport, std::byte{0});
}

TEST(FlowFields, LookBehindVlanTags) {
  const FlowFields one = flow_fields_of(ipv4(17, 0, 0, {0x81, 0, 0x20, 0x07, 0x08, 0}));
  EXPECT_EQ(one.is_tagged, std::byte{1});
  EXPECT_EQ(one.vlan_tag[1], std::byte{7});
  EXPECT_EQ(one.transport, std::byte{17});
  const FlowFields two =
      flow_fields_of(ipv4(17, 0, 0, {0x88, 0xa8, 0, 9, 0x81, 0, 0x20, 0x07, 0x08, 0}));
  EXPECT_EQ(two.vlan_tag[1], std::byte{9});
  EXPECT_EQ(two.transport, std::byte{17});
}

TEST(FlowFields, NeverReadPastTheEnd) {
  const Frame whole[] = {
      ipv4(17, 10), ipv6(0, {60, 0, 0, 0, 0, 0, 0, 0, 43, 0, 0, 0, 0, 0, 0, 0, 17, 255}),
      ipv4(6, 0, 0, {0x81, 0, 0, 1, 0x81, 0, 0, 2, 0x08, 0})};
  for (const Frame& frame : whole) {
    for (std::size_t bytes = 0; bytes <= frame.size(); ++bytes) {
      // Of the exact size, for the address sanitizer.
      const Frame cut(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(bytes));
      const FlowFields fields = flow_fields_of(cut);
      if (bytes < 14) {
        EXPECT_EQ(fields, FlowFields{});
      }
    }
  }
}

TEST(FlowFields, BadHeaderLengthsAreNoIp) {
  Frame frame = ipv4(17);
  frame[14] = std::byte{0x44};  // 16 bytes: shorter than a header.
  EXPECT_EQ(flow_fields_of(frame).ip_version, std::byte{0});
  frame[14] = std::byte{0x4f};  // 60 bytes: past the end.
  EXPECT_EQ(flow_fields_of(frame).ip_version, std::byte{0});
  frame[14] = std::byte{0x65};  // Not what the type says.
  EXPECT_EQ(flow_fields_of(frame).ip_version, std::byte{0});
}

TEST(FlowRule, WithoutMaskMatchesEverything) {
  EXPECT_TRUE(FlowRule{}.matches(flow_fields_of(ipv4(17))));
  EXPECT_TRUE(FlowRule{}.matches(flow_fields_of({})));
}

TEST(FlowRule, MatchesOnlyItsOwn) {
  const Frame udp = ipv4(17);
  const FlowRule port = rule_for(udp, &FlowFields::dst_port);
  EXPECT_TRUE(port.matches(flow_fields_of(udp)));
  EXPECT_TRUE(port.matches(flow_fields_of(ipv4(6))));
  FlowRule udp_port = port;
  udp_port.value.transport = std::byte{17};
  udp_port.mask.transport = kAll;
  EXPECT_FALSE(udp_port.matches(flow_fields_of(ipv4(6))));
  EXPECT_FALSE(udp_port.matches(flow_fields_of(ipv4(17, 0, 1))));
}

TEST(FlowRule, LooksOnlyUnderTheMask) {
  const Frame udp = ipv4(17);
  FlowRule net = rule_for(udp, &FlowFields::src_ip);
  net.mask.src_ip[3] = std::byte{0xfe};
  net.value.src_ip[3] = std::byte{0};
  EXPECT_TRUE(net.matches(flow_fields_of(udp)));  // 10.0.0.1 is in 10.0.0.0/31.
  net.value.src_ip[3] = std::byte{2};
  EXPECT_FALSE(net.matches(flow_fields_of(udp)));
}

TEST(FlowRule, DefaultsComeAfterEveryPriority) {
  const FlowRule late{.priority = 65535};
  const FlowRule fallback{.order = FlowClass::kDefault};
  EXPECT_TRUE(late.is_before(fallback));
  EXPECT_FALSE(fallback.is_before(late));
  EXPECT_TRUE(FlowRule{.priority = 1}.is_before(FlowRule{.priority = 2}));
  EXPECT_FALSE(FlowRule{.priority = 1}.is_before(FlowRule{.priority = 1}));
}

}  // namespace
}  // namespace isthmus::rdma
