// Goal: a receiver hears what a sender sends, whole and once; nobody else's packets are disturbed.
// Method: the loopback interface and an Ethernet type for experiments that nobody else uses.
#include "os/packet_socket.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <vector>

#include "os/clock.h"
#include "os/poll.h"

namespace isthmus::os {
namespace {

constexpr std::uint64_t kPatienceNs = 2 * kNsPerSecond;

std::vector<std::byte> frame_with(int number, std::size_t bytes) {
  std::vector<std::byte> frame(bytes);
  frame[12] = std::byte{0x88};  // 0x88b5: local experiments.
  frame[13] = std::byte{0xb5};
  frame[14] = static_cast<std::byte>(number);
  return frame;
}

bool is_ours(std::span<const std::byte> frame) {
  return frame.size() > 14 && frame[12] == std::byte{0x88} && frame[13] == std::byte{0xb5};
}

// Frames of ours until there are `count`, and what follows in a moment.
std::vector<std::vector<std::byte>> hear(PacketSocket& receiver, std::size_t count) {
  std::vector<std::vector<std::byte>> heard;
  std::uint64_t patience_ns = kPatienceNs;
  const std::array fds{receiver.fd()};
  while (wait_readable(fds, patience_ns) != 0) {
    for (const auto frame : receiver.receive()) {
      if (is_ours(frame)) heard.emplace_back(frame.begin(), frame.end());
    }
    if (heard.size() >= count) patience_ns = kNsPerMs;
  }
  return heard;
}

class PacketSocketTest : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = PacketSocket::open("lo", PacketRole::kSender);
    if (!opened) GTEST_SKIP() << opened.error().message;
    sender = std::move(*opened);
    receiver = std::move(*PacketSocket::open("lo", PacketRole::kReceiver));
  }

  std::unique_ptr<PacketSocket> sender;
  std::unique_ptr<PacketSocket> receiver;
};

TEST_F(PacketSocketTest, FramesArriveWholeInOrderAndOnce) {
  constexpr int kCount = 70;  // More than one batch in both directions.
  std::vector<std::vector<std::byte>> sent;
  std::vector<std::array<iovec, 2>> pieces;
  std::vector<ScatteredFrame> frames;
  for (int i = 0; i < kCount; ++i) sent.push_back(frame_with(i, 60 + static_cast<std::size_t>(i)));
  for (auto& frame : sent) {
    pieces.push_back({{{frame.data(), 20}, {&frame[20], frame.size() - 20}}});
  }
  for (const auto& pair : pieces) frames.emplace_back(pair);
  sender->send(frames);
  EXPECT_EQ(hear(*receiver, kCount), sent);
  EXPECT_EQ(sender->counters().send_failures, 0u);
}

TEST_F(PacketSocketTest, RefusedFramesDoNotHoldUpOthers) {
  auto runt = frame_with(1, 60);
  auto good = frame_with(2, 60);
  const iovec short_piece{runt.data(), 3};  // No Ethernet header.
  const iovec good_piece{good.data(), good.size()};
  const std::array<ScatteredFrame, 2> frames{ScatteredFrame{&short_piece, 1},
                                             ScatteredFrame{&good_piece, 1}};
  sender->send(frames);
  EXPECT_EQ(sender->counters().send_failures, 1u);
  EXPECT_EQ(hear(*receiver, 1), (std::vector<std::vector<std::byte>>{good}));
}

TEST_F(PacketSocketTest, VlanTagsStayInTheirFrames) {
  std::vector<std::byte> tagged = frame_with(3, 64);
  const std::array<std::byte, 4> tag{std::byte{0x81}, std::byte{0}, std::byte{0x20}, std::byte{7}};
  tagged.insert(tagged.begin() + 12, tag.begin(), tag.end());
  const iovec piece{tagged.data(), tagged.size()};
  const ScatteredFrame frame{&piece, 1};
  sender->send({&frame, 1});
  bool found = false;
  const std::array fds{receiver->fd()};
  while (!found && wait_readable(fds, kPatienceNs) != 0) {
    for (const auto heard : receiver->receive()) found |= std::ranges::equal(heard, tagged);
  }
  EXPECT_TRUE(found);
}

TEST(PacketSocket, UnknownInterfaceIsNotFound) {
  const auto opened = PacketSocket::open("no-such-if", PacketRole::kSender);
  ASSERT_FALSE(opened);
  EXPECT_EQ(opened.error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace isthmus::os
