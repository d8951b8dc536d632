// Goal: the source address is the kernel's, each time anew.
// Method: ask about addresses of the loopback, which every host has, and about one of no route.
#include "os/route_probe.h"

#include <gtest/gtest.h>

namespace isthmus::os {
namespace {

TEST(RouteProbe, FindsTheSourceOfLoopbackAddresses) {
  const Result<RouteProbe> probe = RouteProbe::create();
  ASSERT_TRUE(probe);
  for (const char* text : {"127.0.0.1", "127.0.0.7"}) {
    const auto source = probe->source_for(*wire::IpAddress::parse(text));
    ASSERT_TRUE(source) << source.error().message;
    EXPECT_EQ(source->to_string(), "127.0.0.1");
  }
}

TEST(RouteProbe, SaysWhenThereIsNoWay) {
  const Result<RouteProbe> probe = RouteProbe::create();
  ASSERT_TRUE(probe);
  // Class E: no host routes it.
  const auto source = probe->source_for(*wire::IpAddress::parse("255.255.255.255"));
  EXPECT_FALSE(source);
}

}  // namespace
}  // namespace isthmus::os
