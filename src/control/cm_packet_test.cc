// Goal: a connection message leaves as the packet that soft-RoCE sends, comes back out of it, and
// carries a mark that nobody without the key can make or move.
// Method: the published vectors of SipHash; packets there and back, and changed in each way.
#include "control/cm_packet.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "cm/testing.h"
#include "control/cm_mark.h"
#include "wire/byte_order.h"

namespace isthmus::control {
namespace {

using cm::ip;

constexpr std::size_t kModifier = 20;

cm::Mad some_mad() {
  cm::Mad mad;
  wire::encode_cm(wire::CmDreq{.local_comm_id = 1, .remote_comm_id = 2, .remote_qpn = 3}, 4, mad);
  return mad;
}

TEST(SipHash, GivesThePublishedValues) {
  ClusterKey key;
  std::vector<std::byte> input;
  for (int i = 0; i < 16; ++i) key[static_cast<std::size_t>(i)] = static_cast<std::byte>(i);
  EXPECT_EQ(siphash(key, input), 0x726f'db47'dd0e'0e31u);
  for (int i = 0; i < 15; ++i) input.push_back(static_cast<std::byte>(i));
  EXPECT_EQ(siphash(key, input), 0xa129'ca61'49be'45e5u);
}

TEST(ClusterKeyOf, IsOneOfTheSecretAlone) {
  EXPECT_EQ(cluster_key_of("secret"), cluster_key_of("secret\n"));
  EXPECT_NE(cluster_key_of("secret"), cluster_key_of("secret2"));
  EXPECT_NE(cluster_key_of(""), ClusterKey{});
}

TEST(CmMark, HoldsForThisMessageBetweenTheseHosts) {
  const CmMark mark{cluster_key_of("secret")};
  const wire::IpAddress a = ip("10.0.0.1");
  const wire::IpAddress b = ip("10.0.0.2");
  cm::Mad mad = some_mad();
  EXPECT_EQ(mark.judge(a, b, mad), MarkVerdict::kForeign);
  mark.stamp(a, b, mad);
  EXPECT_EQ(mark.judge(a, b, mad), MarkVerdict::kMarked);
  EXPECT_EQ(mark.judge(b, a, mad), MarkVerdict::kForged);
  EXPECT_EQ(mark.judge(a, ip("10.0.0.3"), mad), MarkVerdict::kForged);
  EXPECT_EQ(CmMark{cluster_key_of("other")}.judge(a, b, mad), MarkVerdict::kForged);
  EXPECT_EQ(CmMark{std::nullopt}.judge(a, b, mad), MarkVerdict::kForeign);
  for (std::size_t i = 0; i < mad.size(); ++i) {
    cm::Mad changed = mad;
    changed[i] ^= std::byte{0x10};
    EXPECT_EQ(mark.judge(a, b, changed), MarkVerdict::kForged) << "byte " << i;
  }
}

TEST(CmMark, AnOldMarkIsWrittenOver) {
  const CmMark with{cluster_key_of("secret")};
  cm::Mad mad = some_mad();
  cm::Mad used = mad;
  wire::store_be32(used.data() + kModifier, 0xdead'beef);  // As if a program had put one there.
  with.stamp(ip("10.0.0.1"), ip("10.0.0.2"), mad);
  with.stamp(ip("10.0.0.1"), ip("10.0.0.2"), used);
  EXPECT_EQ(mad, used);
  CmMark{std::nullopt}.stamp(ip("10.0.0.1"), ip("10.0.0.2"), used);
  EXPECT_EQ(wire::load_be32(used.data() + kModifier), 0u);
}

class CmPacketTest : public testing::TestWithParam<std::pair<const char*, const char*>> {
 protected:
  CmPacketTest() { make_cm_packet(flow.source, flow.destination, 5, some_mad(), packet); }
  CmPacketVerdict::Kind parse(std::span<const std::byte> bytes) {
    return parse_cm_packet(flow, bytes, verifier).kind;
  }
  void seal() {
    wire::store_le32(packet.data() + kCmPacketBytes - 4,
                     wire::icrc(flow, std::span(packet).first(kCmPacketBytes - 4)));
  }
  const wire::IcrcFlow flow{.source = ip(GetParam().first),
                            .destination = ip(GetParam().second),
                            .source_port = 4791,
                            .destination_port = 4791};
  std::array<std::byte, kCmPacketBytes> packet;
  wire::IcrcVerifier verifier;
};

TEST_P(CmPacketTest, ComesBackOut) {
  const CmPacketVerdict verdict = parse_cm_packet(flow, packet, verifier);
  ASSERT_EQ(verdict.kind, CmPacketVerdict::Kind::kMad);
  EXPECT_TRUE(std::ranges::equal(verdict.mad, some_mad()));
}

TEST_P(CmPacketTest, IsDroppedWhenItIsSomethingElse) {
  using Kind = CmPacketVerdict::Kind;
  for (std::size_t bytes = 0; bytes < packet.size(); ++bytes) {
    EXPECT_NE(parse(std::span(packet).first(bytes)), Kind::kMad);
  }
  packet[200] ^= std::byte{1};
  EXPECT_EQ(parse(packet), Kind::kBadIcrc);
  packet[200] ^= std::byte{1};

  packet[7] = std::byte{2};  // Destination queue pair.
  seal();
  EXPECT_EQ(parse(packet), Kind::kNotForUs);
  packet[7] = std::byte{1};
  packet[19] = std::byte{2};  // Source queue pair.
  seal();
  EXPECT_EQ(parse(packet), Kind::kMalformed);
  packet[19] = std::byte{1};
  packet[12] = std::byte{0};  // Q_Key.
  seal();
  EXPECT_EQ(parse(packet), Kind::kMalformed);
}

INSTANTIATE_TEST_SUITE_P(Families, CmPacketTest,
                         testing::Values(std::pair{"10.0.0.1", "10.0.0.2"},
                                         std::pair{"2001:db8::1", "2001:db8::2"}));

}  // namespace
}  // namespace isthmus::control
