// Goal: the source address is the kernel's where that is a GID, and a fitting GID where it is not;
// the path MTU is soft-RoCE's for the interface.
// Method: tables as hosts have them, and a lookup that says what a kernel would.
#include "control/cm_addresses.h"

#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include "cm/testing.h"

namespace isthmus::control {
namespace {

using cm::ip;

TEST(PathMtu, LeavesRoomForTheHeaders) {
  EXPECT_EQ(path_mtu_of(0), IBV_MTU_256);
  EXPECT_EQ(path_mtu_of(591), IBV_MTU_256);
  EXPECT_EQ(path_mtu_of(592), IBV_MTU_512);
  EXPECT_EQ(path_mtu_of(1500), IBV_MTU_1024);
  EXPECT_EQ(path_mtu_of(4175), IBV_MTU_2048);
  EXPECT_EQ(path_mtu_of(4176), IBV_MTU_4096);
  EXPECT_EQ(path_mtu_of(65536), IBV_MTU_4096);
}

TEST(CmAddresses, ChoosesTheSource) {
  Result<wire::IpAddress> kernel = fail(ErrorCode::kUnreachable, "no route");
  CmAddresses host{[&](const wire::IpAddress&) { return kernel; }};
  host.set_gids({{.address = ip("fe80::1"), .mtu = 1500},
                 {.address = ip("10.0.0.1"), .mtu = 1500},
                 {.address = ip("10.1.0.1"), .mtu = 9000},
                 {.address = ip("127.0.0.2"), .mtu = 65536}});
  // An address of ours: that one. No route: no way, but for groups the first one that fits.
  EXPECT_EQ(host.source_for(ip("10.1.0.1"))->gid_index, 2);
  EXPECT_EQ(host.source_for(ip("10.5.0.1")).error().code, ErrorCode::kUnreachable);
  EXPECT_EQ(host.source_for(ip("239.1.2.3"))->ip, ip("10.0.0.1"));
  EXPECT_EQ(host.source_for(ip("fe80::77"))->ip, ip("fe80::1"));
  // The kernel's choice, and what stands in for one that is no GID.
  kernel = ip("10.1.0.1");
  EXPECT_EQ(host.source_for(ip("10.1.0.9"))->mtu, IBV_MTU_4096);
  kernel = ip("127.0.0.1");
  EXPECT_EQ(host.source_for(ip("127.0.0.3"))->ip, ip("127.0.0.2"));
  kernel = ip("10.7.0.1");
  EXPECT_EQ(host.source_for(ip("10.7.0.9"))->ip, ip("10.0.0.1"));
  kernel = ip("2001:db8::1");
  EXPECT_FALSE(host.source_for(ip("2001:db8::2")));
  EXPECT_FALSE(host.find(ip("10.9.9.9")));
}

}  // namespace
}  // namespace isthmus::control
