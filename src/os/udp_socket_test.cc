// Goal: segmented runs arrive as the datagrams they were cut into, with addresses; groups steer by
// destination QP number and multicast reaches members alone.
// Method: sockets on unusual loopback addresses, so that parallel runs do not meet.
#include "os/udp_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "os/clock.h"
#include "os/epoll.h"
#include "os/poll.h"
#include "os/reuseport_group.h"

namespace isthmus::os {
namespace {

using wire::IpAddress;

IpAddress address_of(const char* text) { return *IpAddress::parse(text); }

std::unique_ptr<UdpSocket> open_at(const char* address) {
  auto socket = UdpSocket::open({.address = address_of(address), .port = 0});
  EXPECT_TRUE(socket) << socket.error().message;
  return std::move(*socket);
}

bool wait_for(const UdpSocket& socket) {
  const int fd = socket.fd();
  return wait_readable({&fd, 1}, 5 * kNsPerSecond);
}

std::vector<std::byte> numbered_bytes(std::size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::size_t i = 0; i < count; ++i) bytes[i] = std::byte(i % 251);
  return bytes;
}

// What arrives at `socket`, put together, and the size of each datagram.
struct Arrivals {
  std::vector<std::byte> bytes;
  std::vector<std::size_t> sizes;
  std::vector<ArrivedDatagram> datagrams;  // Their payloads are not valid.
};

Arrivals take(UdpSocket& socket, std::size_t bytes) {
  Arrivals arrivals;
  while (arrivals.bytes.size() < bytes && wait_for(socket)) {
    for (const ArrivedDatagram& datagram : socket.receive()) {
      arrivals.bytes.insert(arrivals.bytes.end(), datagram.payload.begin(),
                            datagram.payload.end());
      arrivals.sizes.push_back(datagram.payload.size());
      arrivals.datagrams.push_back(datagram);
    }
  }
  return arrivals;
}

class UdpFamilies : public testing::TestWithParam<const char*> {};

TEST_P(UdpFamilies, CarryARunOfSegmentsAsDatagrams) {
  const auto receiver = open_at(GetParam());
  const auto sender = open_at(GetParam());
  receiver->ask_for_hops();
  const IpAddress here = address_of(GetParam());

  // 60 segments of 1000 and one of 10, in parts that end anywhere.
  const std::vector<std::byte> sent = numbered_bytes(60'010);
  const std::array parts{part_of(std::span(sent).first(1)),
                         part_of(std::span(sent).subspan(1, 30'499)),
                         part_of(std::span(sent).subspan(30'500))};
  const OutgoingDatagramRun run{.source = here,
                                .destination = here,
                                .destination_port = receiver->port(),
                                .parts = parts,
                                .bytes = 60'010,
                                .segment_bytes = 1000};
  sender->send({&run, 1});
  const Arrivals arrivals = take(*receiver, sent.size());
  EXPECT_EQ(arrivals.bytes, sent);
  ASSERT_EQ(arrivals.sizes.size(), 61u);
  EXPECT_EQ(std::ranges::count(arrivals.sizes, 1000u), 60);
  EXPECT_EQ(arrivals.sizes.back(), 10u);

  // The addresses of both ends come along; what only the GRH area needs, when asked for.
  const ArrivedDatagram& last = arrivals.datagrams.back();
  EXPECT_EQ(last.source, here);
  EXPECT_EQ(last.destination, here);
  EXPECT_EQ(last.source_port, sender->port());
  EXPECT_EQ(last.hop_limit, 64);
  EXPECT_EQ(last.traffic_class, 0);
  EXPECT_EQ(sender->counters().send_failures, 0u);
  EXPECT_TRUE(receiver->receive().empty());
}

INSTANTIATE_TEST_SUITE_P(V4AndV6, UdpFamilies, testing::Values("127.0.0.77", "::1"));

TEST(UdpSocket, LosesWhatTheKernelRefusesAndSendsTheRest) {
  const auto receiver = open_at("127.0.0.77");
  const auto sender = UdpSocket::open({.address = IpAddress::from_v4(0)});
  ASSERT_TRUE(sender) << sender.error().message;
  const std::vector<std::byte> bytes = numbered_bytes(8);
  const iovec part = part_of(bytes);
  const OutgoingDatagramRun good{.source = address_of("127.0.0.78"),
                                 .destination = address_of("127.0.0.77"),
                                 .destination_port = receiver->port(),
                                 .parts = {&part, 1},
                                 .bytes = 8,
                                 .segment_bytes = 8};
  OutgoingDatagramRun foreign = good;
  foreign.source = address_of("192.0.2.77");  // Not an address of ours.
  OutgoingDatagramRun other_family = good;
  other_family.destination = address_of("::1");
  const std::array runs{good, foreign, other_family, good};
  (*sender)->send(runs);

  const Arrivals arrivals = take(*receiver, 16);
  EXPECT_EQ(arrivals.sizes, (std::vector<std::size_t>{8, 8}));
  EXPECT_EQ(arrivals.datagrams.front().source, address_of("127.0.0.78"));
  EXPECT_EQ((*sender)->counters().send_failures, 2u);
}

TEST(UdpSocket, SaysThatAPortIsTaken) {
  const auto first = open_at("127.0.0.77");
  const auto second = UdpSocket::open({.address = address_of("127.0.0.77"), .port = first->port()});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, ErrorCode::kAddressInUse);
}

TEST(UdpSocket, RefusesADescriptorOfAnotherKind) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const Fd other_end{ends[1]};
  EXPECT_FALSE(UdpSocket::adopt(Fd{ends[0]}));
}

TEST(UdpSocket, GivesMulticastToMembersAlone) {
  // Both listen at the group's address; only one joins, on the loopback.
  const IpAddress group = address_of("239.77.1.2");
  const auto member = UdpSocket::open({.address = group, .sharing = PortSharing::kMulticast});
  ASSERT_TRUE(member) << member.error().message;
  const auto other = UdpSocket::open(
      {.address = group, .port = (*member)->port(), .sharing = PortSharing::kMulticast});
  ASSERT_TRUE(other) << other.error().message;
  const auto joined = (*member)->join(group, address_of("127.0.0.77"));
  ASSERT_TRUE(joined) << joined.error().message;

  const auto sender = open_at("127.0.0.77");
  const std::vector<std::byte> bytes = numbered_bytes(8);
  const iovec part = part_of(bytes);
  const OutgoingDatagramRun run{.source = address_of("127.0.0.77"),
                                .destination = group,
                                .destination_port = (*member)->port(),
                                .parts = {&part, 1},
                                .bytes = 8,
                                .segment_bytes = 8};
  sender->send({&run, 1});
  const Arrivals arrivals = take(**member, 8);
  ASSERT_EQ(arrivals.sizes.size(), 1u);  // Once, not once more by the interface.
  EXPECT_EQ(arrivals.datagrams[0].destination, group);
  EXPECT_TRUE((*other)->receive().empty());

  // After leaving, nothing comes any more. A marker sent directly shows that it would have.
  (*member)->leave(group);
  sender->send({&run, 1});
  EXPECT_TRUE((*member)->receive().empty());
  EXPECT_FALSE((*member)->join(address_of("10.0.0.1")));
}

// The first bytes of a base transport header with this destination QP number.
std::array<std::byte, 12> header_for(std::uint32_t qpn) {
  std::array<std::byte, 12> header{};
  header[5] = std::byte(qpn >> 16);
  header[6] = std::byte(qpn >> 8);
  header[7] = std::byte(qpn);
  return header;
}

class Steering : public testing::Test {
 protected:
  void SetUp() override {
    // A free port, found by a socket that is closed again.
    const std::uint16_t port = open_at(kAddress)->port();
    auto group = ReuseportGroup::create({.address = address_of(kAddress), .port = port});
    ASSERT_TRUE(group) << group.error().message;
    group_ = std::move(*group);
    sender_ = open_at(kAddress);
  }

  void send(std::uint32_t qpn, std::size_t bytes = 12) {
    const auto header = header_for(qpn);
    const iovec part = part_of(std::span(header).first(bytes));
    const OutgoingDatagramRun run{.source = address_of(kAddress),
                                  .destination = address_of(kAddress),
                                  .destination_port = group_->port(),
                                  .parts = {&part, 1},
                                  .bytes = static_cast<std::uint32_t>(bytes),
                                  .segment_bytes = 12};
    sender_->send({&run, 1});
  }

  // The loopback delivers within the send, so nothing has to be waited for.
  std::vector<std::uint32_t> members_with_data() {
    std::vector<std::uint32_t> found;
    for (std::uint32_t i = 0; i < group_->size(); ++i) {
      char bytes[64];
      while (recv(group_->member(i).get(), bytes, sizeof bytes, MSG_DONTWAIT) >= 0) {
        found.push_back(i);
      }
    }
    return found;
  }

  static constexpr const char* kAddress = "127.0.0.77";
  std::unique_ptr<ReuseportGroup> group_;
  std::unique_ptr<UdpSocket> sender_;
};

TEST_F(Steering, FollowsTheTopTenBitsOfTheQpNumber) {
  ASSERT_TRUE(group_->grow_to_include(3));
  EXPECT_EQ(group_->size(), 4u);
  send(1);  // The daemon's QP 1.
  send((1u << 14) | 77);
  send((3u << 14) | 0x3fff);
  EXPECT_THAT(members_with_data(), testing::ElementsAre(0, 1, 3));

  // Out of range and too short: the daemon's.
  send(4u << 14);
  send(0xff'ffff);
  send(2u << 14, 6);
  EXPECT_THAT(members_with_data(), testing::ElementsAre(0, 0, 0));

  // The group grows: what was out of range has a member now.
  ASSERT_TRUE(group_->grow_to_include(4));
  send(4u << 14);
  EXPECT_THAT(members_with_data(), testing::ElementsAre(4));
}

TEST_F(Steering, LeadsAwayFromAMemberAndBack) {
  ASSERT_TRUE(group_->grow_to_include(2));
  ASSERT_TRUE(group_->steer_away(2));
  send(2u << 14);
  send(1u << 14);
  EXPECT_THAT(members_with_data(), testing::ElementsAre(0, 1));
  ASSERT_TRUE(group_->steer_back(2));
  send(2u << 14);
  EXPECT_THAT(members_with_data(), testing::ElementsAre(2));
}

TEST_F(Steering, SurvivesTheOneWhoOpenedIt) {
  ASSERT_TRUE(group_->grow_to_include(2));
  std::vector<Fd> kept;
  for (std::uint32_t i = 0; i < 3; ++i) kept.push_back(std::move(*group_->member(i).duplicate()));
  const std::uint16_t port = group_->port();
  group_.reset();
  auto adopted = ReuseportGroup::adopt({.address = address_of(kAddress), .port = port},
                                       std::move(kept));
  ASSERT_TRUE(adopted) << adopted.error().message;
  group_ = std::move(*adopted);
  // Nobody says yet who still holds member 2.
  send(2u << 14);
  EXPECT_THAT(members_with_data(), testing::ElementsAre(0));
  ASSERT_TRUE(group_->steer_back(2));
  send(2u << 14);
  EXPECT_THAT(members_with_data(), testing::ElementsAre(2));
}

TEST_F(Steering, DrainsAMember) {
  ASSERT_TRUE(group_->grow_to_include(1));
  send(1u << 14);
  send(1u << 14);
  group_->drain_member(1);
  EXPECT_TRUE(members_with_data().empty());
}

TEST_F(Steering, KeepsMembersFromReplacingTheProgram) {
  ASSERT_TRUE(group_->grow_to_include(1));
  sock_filter to_zero{};
  to_zero.code = 6;  // BPF_RET | BPF_K
  const sock_fprog program{1, &to_zero};
  EXPECT_NE(setsockopt(group_->member(1).get(), SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program,
                       sizeof program),
            0);
}

}  // namespace
}  // namespace isthmus::os
