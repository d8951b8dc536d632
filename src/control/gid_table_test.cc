// Goal: the order of the GID table, which programs rely on.
// Method: a made-up host with two interfaces and a loopback.
#include "control/gid_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace isthmus::control {
namespace {

wire::IpAddress address_of(const char* text) { return *wire::IpAddress::parse(text); }

os::Interface interface_of(const char* name, std::initializer_list<const char*> addresses) {
  os::Interface entry;
  entry.name = name;
  entry.mtu = 1500;
  entry.is_up = true;
  entry.is_loopback = entry.name == "lo";
  for (const char* text : addresses) entry.addresses.push_back({.address = address_of(text)});
  return entry;
}

std::vector<std::string> texts(const std::vector<LocalGid>& gids) {
  std::vector<std::string> result;
  for (const LocalGid& gid : gids) result.push_back(gid.address.to_string());
  return result;
}

TEST(GidTable, HasTheOrderOfSoftRoce) {
  const std::vector interfaces{
      interface_of("lo", {"127.0.0.1", "::1"}),
      interface_of("eth0", {"10.0.0.1", "fd00::1", "fe80::1"}),
      interface_of("eth1", {"10.0.1.1", "fe80::2"}),
  };
  const auto gids = make_gid_table(interfaces, {});
  ASSERT_TRUE(gids);
  EXPECT_THAT(texts(*gids), testing::ElementsAre("fe80::1", "10.0.0.1", "10.0.1.1", "fd00::1",
                                                 "127.0.0.1", "::1", "fe80::2"));
  EXPECT_EQ((*gids)[2].interface_name, "eth1");
}

TEST(GidTable, LeavesOutInterfacesThatAreDown) {
  std::vector interfaces{interface_of("lo", {"127.0.0.1"}), interface_of("eth0", {"10.0.0.1"})};
  interfaces[1].is_up = false;
  EXPECT_THAT(texts(*make_gid_table(interfaces, {})), testing::ElementsAre("127.0.0.1"));
  interfaces[0].is_up = false;
  EXPECT_EQ(make_gid_table(interfaces, {}).error().code, ErrorCode::kNotFound);
}

TEST(GidTable, TakesTheAddressesToldAndNoOthers) {
  const std::vector interfaces{interface_of("lo", {"127.0.0.1"}),
                               interface_of("eth0", {"10.0.0.1"})};
  const std::vector told{address_of("127.0.0.2"), address_of("10.0.0.1")};
  EXPECT_THAT(texts(*make_gid_table(interfaces, told)),
              testing::ElementsAre("127.0.0.2", "10.0.0.1"));
  const std::vector foreign{address_of("10.0.0.9")};
  EXPECT_EQ(make_gid_table(interfaces, foreign).error().code, ErrorCode::kNotFound);
}

TEST(GidTable, IsBounded) {
  os::Interface entry = interface_of("eth0", {});
  for (unsigned i = 0; i < 100; ++i) {
    entry.addresses.push_back({.address = wire::IpAddress::from_v4(0x0a000001 + i)});
  }
  EXPECT_EQ(make_gid_table(std::span(&entry, 1), {})->size(), 32u);
}

}  // namespace
}  // namespace isthmus::control
