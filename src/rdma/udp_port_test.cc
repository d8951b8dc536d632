// Goal: a port made of several sockets sends from the right one and hears all of them.
// Method: two ports on loopback addresses of the test's own, IPv4 and IPv6 together.
#include "rdma/udp_port.h"

#include <gtest/gtest.h>

#include <array>

#include "os/clock.h"
#include "os/poll.h"

namespace isthmus::rdma {
namespace {

wire::IpAddress address_of(const char* text) { return *wire::IpAddress::parse(text); }

std::uint16_t free_port() {
  return (*os::UdpSocket::open({.address = address_of("127.0.0.77")}))->port();
}

std::unique_ptr<UdpPort> open_port(std::uint16_t port, std::initializer_list<const char*> at) {
  std::vector<os::Fd> sockets;
  for (const char* address : at) {
    auto fd = os::open_udp_fd({.address = address_of(address), .port = port});
    EXPECT_TRUE(fd) << fd.error().message;
    sockets.push_back(std::move(*fd));
  }
  return std::move(*UdpPort::create(std::move(sockets)));
}

// One batch; the port may need a few calls to come to the right socket.
std::vector<std::pair<std::string, std::size_t>> receive(UdpPort& port) {
  const int fd = port.fd();
  std::vector<std::pair<std::string, std::size_t>> found;
  while (found.empty() && os::wait_readable({&fd, 1}, 5 * os::kNsPerSecond)) {
    for (const IncomingDatagram& arrived : port.receive()) {
      found.emplace_back(arrived.source.to_string(), arrived.payload.size());
    }
  }
  return found;
}

TEST(UdpPort, SendsFromTheSocketOfTheSourceAndHearsAll) {
  const std::uint16_t port = free_port();
  const auto left = open_port(port, {"127.0.0.77", "127.0.0.79"});
  const auto right = open_port(port, {"127.0.0.78"});
  const std::array<std::byte, 96> bytes{};
  const iovec all = os::part_of(bytes);
  const iovec some = os::part_of(std::span(bytes).first(32));
  const std::array runs{OutgoingRun{.source = address_of("127.0.0.77"),
                                    .destination = address_of("127.0.0.78"),
                                    .parts = {&all, 1},
                                    .bytes = 96,
                                    .segment_bytes = 64},
                        OutgoingRun{.source = address_of("127.0.0.79"),
                                    .destination = address_of("127.0.0.78"),
                                    .parts = {&some, 1},
                                    .bytes = 32,
                                    .segment_bytes = 32}};
  left->send(runs);
  auto found = receive(*right);
  while (found.size() < 3) {
    for (auto& item : receive(*right)) found.push_back(std::move(item));
  }
  EXPECT_EQ(found, (decltype(found){{"127.0.0.77", 64}, {"127.0.0.77", 32}, {"127.0.0.79", 32}}));
  EXPECT_EQ(left->counters().send_failures, 0u);

  // Both sockets of the left are heard, whichever delivered last.
  const iovec little = os::part_of(std::span(bytes).first(16));
  for (const char* target : {"127.0.0.79", "127.0.0.77", "127.0.0.79"}) {
    const OutgoingRun back{.source = address_of("127.0.0.78"),
                           .destination = address_of(target),
                           .parts = {&little, 1},
                           .bytes = 16,
                           .segment_bytes = 16};
    right->send({&back, 1});
    EXPECT_EQ(receive(*left), (decltype(found){{"127.0.0.78", 16}}));
  }
}

TEST(UdpPort, CarriesIpv6BesideIpv4) {
  const std::uint16_t port = free_port();
  const auto both = open_port(port, {"127.0.0.77", "::1"});
  const std::array<std::byte, 16> bytes{};
  const iovec part = os::part_of(bytes);
  for (const char* address : {"::1", "127.0.0.77"}) {
    const OutgoingRun run{.source = address_of(address),
                          .destination = address_of(address),
                          .parts = {&part, 1},
                          .bytes = 16,
                          .segment_bytes = 16};
    both->send({&run, 1});
    EXPECT_EQ(receive(*both),
              (std::vector<std::pair<std::string, std::size_t>>{{address, 16}}));
  }
}

TEST(UdpPort, JoinsAGroupThoughItsSocketsHaveOneAddress) {
  const std::uint16_t port = free_port();
  const auto member = open_port(port, {"127.0.0.77"});
  const auto sender = open_port(port, {"127.0.0.78"});
  const wire::IpAddress group = address_of("239.77.3.4");
  const std::array<std::byte, 16> bytes{};
  const iovec part = os::part_of(bytes);
  const OutgoingRun run{.source = address_of("127.0.0.78"),
                        .destination = group,
                        .parts = {&part, 1},
                        .bytes = 16,
                        .segment_bytes = 16};
  ASSERT_TRUE(member->join(group));
  ASSERT_TRUE(member->join(group));  // Again: nothing changes.
  sender->send({&run, 1});
  EXPECT_EQ(receive(*member).size(), 1u);
  member->leave(group);
  sender->send({&run, 1});
  const int fd = member->fd();
  EXPECT_FALSE(os::wait_readable({&fd, 1}, 0));
  EXPECT_FALSE(member->join(address_of("10.0.0.1")));
  EXPECT_FALSE(member->join(address_of("ff02::77")));  // No IPv6 socket.
}

TEST(UdpPort, WantsSockets) { EXPECT_FALSE(UdpPort::create({})); }

}  // namespace
}  // namespace isthmus::rdma
