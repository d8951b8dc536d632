// Goal: ports are shared and refused as sockets share and refuse them.
// Method: pairs of claims, each with the verdict that bind(2) and listen(2) would give.
#include "cm/port_table.h"

#include <gtest/gtest.h>

#include <random>

#include "cm/testing.h"

namespace isthmus::cm {
namespace {

constexpr auto kTcp = wire::PortSpace::kTcp;
constexpr std::uint16_t kPort = 7471;

PortClaim claim(std::uint32_t holder, std::string_view text) {
  const wire::IpAddress address = ip(text);
  return {.holder = holder,
          .family = address.is_v4() ? Family::kV4 : Family::kV6,
          .wildcard = address.is_zero() || address == wire::IpAddress::from_v4(0),
          .ip = address,
          .family_only = address.is_v4()};
}

class PortTableTest : public testing::Test {
 protected:
  bool bind(const PortClaim& c, std::uint16_t port = kPort) {
    return ports.bind(kTcp, port, c).has_value();
  }
  std::mt19937_64 random{1};
  PortTable ports{[this] { return random(); }};
};

TEST_F(PortTableTest, OneAddressOneHolder) {
  EXPECT_TRUE(bind(claim(1, "10.0.0.1")));
  EXPECT_FALSE(bind(claim(2, "10.0.0.1")));
  EXPECT_TRUE(bind(claim(2, "10.0.0.2")));
  EXPECT_FALSE(bind(claim(3, "0.0.0.0")));
  EXPECT_TRUE(bind(claim(3, "2001:db8::1")));
  EXPECT_FALSE(bind(claim(4, "::")));  // Covers IPv4 as well.
  PortClaim six_only = claim(4, "::");
  six_only.family_only = true;
  EXPECT_FALSE(bind(six_only));  // 2001:db8::1 is one of its addresses.
  ports.release(kTcp, kPort, 3);
  EXPECT_TRUE(bind(six_only));
  EXPECT_TRUE(ports.bind(wire::PortSpace::kUdp, kPort, claim(5, "0.0.0.0")));
}

TEST_F(PortTableTest, TheTwoWildcards) {
  EXPECT_TRUE(bind(claim(1, "0.0.0.0")));
  EXPECT_FALSE(bind(claim(2, "::")));
  PortClaim six_only = claim(2, "::");
  six_only.family_only = true;
  EXPECT_TRUE(bind(six_only));
}

TEST_F(PortTableTest, ReuseUntilSomebodyListens) {
  PortClaim first = claim(1, "10.0.0.1");
  PortClaim second = claim(2, "10.0.0.1");
  first.reuse_address = true;
  EXPECT_TRUE(bind(first));
  EXPECT_FALSE(bind(second));
  second.reuse_address = true;
  EXPECT_TRUE(bind(second));
  EXPECT_FALSE(ports.listen(kTcp, kPort, 1));
  ports.release(kTcp, kPort, 2);
  EXPECT_TRUE(ports.listen(kTcp, kPort, 1));
  EXPECT_FALSE(bind(second));
  EXPECT_FALSE(ports.listen(kTcp, kPort, 9));
  EXPECT_FALSE(ports.listen(kTcp, kPort + 1, 1));
}

TEST_F(PortTableTest, TheMostExactListenerGetsTheRequest) {
  EXPECT_EQ(ports.listener_for(kTcp, kPort, ip("10.0.0.1")), 0u);
  ASSERT_TRUE(bind(claim(1, "10.0.0.1")));
  EXPECT_EQ(ports.listener_for(kTcp, kPort, ip("10.0.0.1")), 0u);  // Bound, not listening.
  ASSERT_TRUE(ports.listen(kTcp, kPort, 1));
  EXPECT_EQ(ports.listener_for(kTcp, kPort, ip("10.0.0.1")), 1u);
  EXPECT_EQ(ports.listener_for(kTcp, kPort, ip("10.0.0.2")), 0u);

  ASSERT_TRUE(bind(claim(2, "::"), kPort + 1));
  ASSERT_TRUE(ports.listen(kTcp, kPort + 1, 2));
  EXPECT_EQ(ports.listener_for(kTcp, kPort + 1, ip("10.0.0.1")), 2u);
  EXPECT_EQ(ports.listener_for(kTcp, kPort + 1, ip("2001:db8::5")), 2u);
}

TEST_F(PortTableTest, FindsFreePortsToTheLast) {
  const std::uint32_t count = PortTable::kLastEphemeral - PortTable::kFirstEphemeral + 1;
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto port = ports.bind(kTcp, 0, claim(i + 1, "0.0.0.0"));
    ASSERT_TRUE(port);
    ASSERT_GE(*port, PortTable::kFirstEphemeral);
  }
  EXPECT_EQ(ports.bind(kTcp, 0, claim(1, "0.0.0.0")).error().code, ErrorCode::kAddressInUse);
}

}  // namespace
}  // namespace isthmus::cm
