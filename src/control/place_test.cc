// Goal: a place opens once, explains who has its port, and coalesces datagrams only where that
// cannot send them astray.
// Method: loopback addresses of the test's own; with root a network namespace with an interface
// that counts as a way to other machines.
#include "control/place.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/udp.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include "os/netns.h"

namespace isthmus::control {
namespace {

wire::IpAddress address_of(const char* text) { return *wire::IpAddress::parse(text); }

std::uint16_t free_port() {
  return (*os::UdpSocket::open({.address = address_of("127.1.2.6")}))->port();
}

bool coalesces(const Place& place, std::uint32_t function) {
  int on = -1;
  socklen_t size = sizeof on;
  getsockopt(place.groups()[0]->member(function).get(), SOL_UDP, UDP_GRO, &on, &size);
  return on == 1;
}

// As the function service does it for a new function.
void give(Place& place, std::uint32_t function) {
  ASSERT_TRUE(place.sockets_of(function));
  ASSERT_TRUE(place.steer_back(function));
}

TEST(Place, IsTheOnlyOneOfItsAddress) {
  const PlaceOptions options{.only = {address_of("127.1.2.6")}, .port = free_port()};
  auto first = Place::open(options, os::Fd{}, {});
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_TRUE((*first)->has(address_of("127.1.2.6")));
  EXPECT_FALSE((*first)->has(address_of("127.1.2.7")));

  // The kernel would let us in, as we are the same user; we must not.
  const auto second = Place::open(options, os::Fd{}, {});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kAddressInUse);
  EXPECT_THAT(second.error().message, testing::HasSubstr("another isthmusd of yours"));
  EXPECT_THAT(second.error().message, testing::HasSubstr("--address"));

  // Another address of the same host is another place.
  PlaceOptions beside = options;
  beside.only = {address_of("127.1.2.7")};
  EXPECT_TRUE(Place::open(beside, os::Fd{}, {}));
  first->reset();
  EXPECT_TRUE(Place::open(options, os::Fd{}, {}));
}

TEST(Place, RefusesAddressesOfOthers) {
  const auto place = Place::open({.only = {address_of("192.0.2.77")}}, os::Fd{}, {});
  ASSERT_FALSE(place);
  EXPECT_EQ(place.error().code, ErrorCode::kNotFound);
}

TEST(Place, CoalescesOnTheLoopbackWhateverTheNumberOfFunctions) {
  auto place =
      Place::open({.only = {address_of("127.1.2.6")}, .port = free_port()}, os::Fd{}, {});
  ASSERT_TRUE(place);
  for (std::uint32_t function = 1; function <= 3; ++function) give(**place, function);
  EXPECT_TRUE(coalesces(**place, 1));
  EXPECT_TRUE(coalesces(**place, 3));
}

TEST(Place, CoalescesForOneFunctionAloneWherePacketsComeFromElsewhere) {
  // A thread of its own is in the namespace; the rest of the process stays where it is.
  std::string skipped;
  std::thread inside([&] {
    if (unshare(CLONE_NEWNET) != 0) {
      skipped = "needs root for a network namespace";
      return;
    }
    if (std::system("ip link add eth9 type bridge && ip address add 10.96.0.1/24 dev eth9 && "
                    "ip link set eth9 up && ip link set lo up") != 0) {
      skipped = "needs the ip program and the bridge module";
      return;
    }
    auto place = Place::open({.only = {address_of("10.96.0.1")}}, os::Fd{}, {});
    ASSERT_TRUE(place) << place.error().message;
    EXPECT_EQ((*place)->gids()[0].interface_name, "eth9");
    give(**place, 1);
    EXPECT_TRUE(coalesces(**place, 1));
    give(**place, 2);
    EXPECT_FALSE(coalesces(**place, 1));
    EXPECT_FALSE(coalesces(**place, 2));
    ASSERT_TRUE((*place)->steer_away(1));
    EXPECT_TRUE(coalesces(**place, 2));
    give(**place, 3);
    EXPECT_FALSE(coalesces(**place, 3));
  });
  inside.join();
  if (!skipped.empty()) GTEST_SKIP() << skipped;
}

TEST(Place, OpensInsideAnotherNetworkNamespace) {
  os::Fd other;
  std::uint64_t id = 0;
  std::thread inside([&] {
    if (unshare(CLONE_NEWNET) != 0 || std::system("ip link set lo up") != 0) return;
    // Of this thread: /proc/self would be the process.
    other = std::move(*os::open_network_namespace(gettid()));
    id = *os::network_namespace_id(other);
  });
  inside.join();
  if (id == 0) GTEST_SKIP() << "needs root for a network namespace";
  auto place = Place::open({.only = {}, .port = 4791}, std::move(other), {});
  ASSERT_TRUE(place) << place.error().message;
  EXPECT_EQ((*place)->namespace_id(), id);
  ASSERT_EQ((*place)->gids().size(), 2u);
  EXPECT_EQ((*place)->gids()[0].address, address_of("127.0.0.1"));
  // Both families, and sockets that come later are in there as well.
  EXPECT_EQ((*place)->sockets_of(5)->size(), 2u);
}

}  // namespace
}  // namespace isthmus::control
