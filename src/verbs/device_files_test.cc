// Goal: the device's files say what the functions say, in the kernel's words.
// Method: facts of a host with two interfaces; read single files, then look over the whole list.
#include "verbs/device_files.h"

#include <gtest/gtest.h>

#include <set>

namespace isthmus::verbs {
namespace {

DeviceFacts two_interfaces() {
  return {.guid = 0x0200'5eff'fe00'1234,
          .gids = {{.address = *wire::IpAddress::parse("10.1.2.3"),
                    .interface_name = "eth0",
                    .mtu = 1500},
                   {},
                   {.address = *wire::IpAddress::parse("fe80::1"),
                    .interface_name = "eth1",
                    .mtu = 9000}},
          .active_mtu = IBV_MTU_1024};
}

std::string read(const std::string& path) {
  return read_device_file(two_interfaces(), std::string(kDevicePath) + path).value_or("absent");
}

TEST(DeviceFiles, AreTheKernelsWords) {
  EXPECT_EQ(read("/node_type"), "1: CA\n");
  EXPECT_EQ(read("/node_guid"), "0200:5eff:fe00:1234\n");
  EXPECT_EQ(read("/ports/1/state"), "4: ACTIVE\n");
  EXPECT_EQ(read("/ports/1/link_layer"), "Ethernet\n");
  EXPECT_EQ(read("/ports/1/gids/0"), "0000:0000:0000:0000:0000:ffff:0a01:0203\n");
  EXPECT_EQ(read("/ports/1/gid_attrs/types/0"), "RoCE v2\n");
  EXPECT_EQ(read("/ports/1/gid_attrs/ndevs/2"), "eth1\n");
}

TEST(DeviceFiles, HaveNoAttributesOfUnusedGids) {
  EXPECT_EQ(read("/ports/1/gids/1"), "0000:0000:0000:0000:0000:0000:0000:0000\n");
  EXPECT_EQ(read("/ports/1/gid_attrs/types/1"), "absent");
  EXPECT_EQ(read("/ports/1/gid_attrs/ndevs/31"), "absent");
}

TEST(DeviceFiles, NameTheInterfacesAndEachPathOnce) {
  std::set<std::string> paths;
  for (const DeviceFile& file : device_files(two_interfaces())) {
    EXPECT_TRUE(paths.insert(file.path).second) << file.path;
    EXPECT_EQ(file.is_folder, file.content.empty()) << file.path;
  }
  EXPECT_TRUE(paths.contains(std::string(kDevicePath) + "/device/net/eth0"));
  EXPECT_TRUE(paths.contains(std::string(kDevicePath) + "/device/net/eth1"));
}

TEST(DeviceFacts, ThePathMtuLeavesRoomForHeaders) {
  EXPECT_EQ(path_mtu_of(65536), IBV_MTU_4096);
  EXPECT_EQ(path_mtu_of(4096 + 80), IBV_MTU_4096);
  EXPECT_EQ(path_mtu_of(4096 + 79), IBV_MTU_2048);
  EXPECT_EQ(path_mtu_of(1500), IBV_MTU_1024);
  EXPECT_EQ(path_mtu_of(0), IBV_MTU_256);
}

TEST(DeviceFacts, TheSmallestInterfaceCountsAndLoopbackDoesNot) {
  const auto info = [](const char* address, std::uint32_t mtu) {
    return attach::GidInfo{
        .gid = *wire::IpAddress::parse(address), .interface_name = "x", .mtu = mtu};
  };
  EXPECT_EQ(facts_of(1, {info("127.0.0.1", 65536)}).active_mtu, IBV_MTU_4096);
  EXPECT_EQ(facts_of(1, {info("127.0.0.1", 65536), info("10.0.0.1", 9000)}).active_mtu,
            IBV_MTU_4096);
  EXPECT_EQ(facts_of(1, {info("10.0.0.1", 9000), info("10.0.1.1", 1500)}).active_mtu,
            IBV_MTU_1024);
}

}  // namespace
}  // namespace isthmus::verbs
