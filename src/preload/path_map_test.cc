// Goal: exactly the device's names are changed, however a program spells them.
// Method: names that are ours, names that only look so, and the way back.
#include "preload/path_map.h"

#include <gtest/gtest.h>

namespace isthmus::preload {
namespace {

TEST(PathMap, KnowsTheDevicesNames) {
  for (const char* path : {"/sys/class/infiniband", "/sys/class/infiniband/",
                           "/sys/class/infiniband/isthmus0/ports/1/gids/0",
                           "/sys/class/infiniband_verbs/uverbs0/ibdev",
                           "/dev/infiniband/rdma_cm"}) {
    EXPECT_TRUE(is_device_path(path)) << path;
  }
  for (const char* path : {"", "/", "/sys/class/infiniband_mad", "/sys/class/infinibandx/a",
                           "/dev/infiniband0", "sys/class/infiniband", "/sys/class/net"}) {
    EXPECT_FALSE(is_device_path(path)) << path;
  }
}

TEST(PathMap, FindsThemInTheTree) {
  EXPECT_EQ(stand_in("/sys/class/infiniband", "/t"), "/t/sys/class/infiniband");
  EXPECT_EQ(stand_in("/sys/class/infiniband//isthmus0/./node_type", "/t"),
            "/t/sys/class/infiniband/isthmus0/node_type");
  EXPECT_EQ(stand_in("/sys/class/infiniband/isthmus0/device/net/", "/t"),
            "/t/sys/class/infiniband/isthmus0/device/net");
}

TEST(PathMap, MakesTheNodesCharacterDevices) {
  EXPECT_EQ(stand_in("/dev/infiniband/uverbs0", "/t"), "/dev/null");
  EXPECT_EQ(stand_in("/dev/infiniband//rdma_cm", "/t"), "/dev/null");
  EXPECT_EQ(stand_in("/dev/infiniband", "/t"), "/t/dev/infiniband");
}

TEST(PathMap, LeavesAloneWhatClimbsOut) {
  EXPECT_EQ(stand_in("/sys/class/infiniband/../net", "/t"), std::nullopt);
}

TEST(PathMap, HidesTheTree) {
  EXPECT_EQ(as_seen("/t/sys/class/infiniband/isthmus0", "/t"), "/sys/class/infiniband/isthmus0");
  EXPECT_EQ(as_seen("/dev/null", "/t"), "/dev/null");
}

}  // namespace
}  // namespace isthmus::preload
