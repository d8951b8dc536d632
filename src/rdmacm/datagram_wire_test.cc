// Goal: the headers of datagram rsockets are those of Linux, and nothing else passes for one.
// Method: bytes written out by hand, and what is one bit off.
#include "rdmacm/datagram_wire.h"

#include <gtest/gtest.h>
#include <sys/socket.h>

#include <vector>

namespace isthmus::rdmacm {
namespace {

attach::CmAddress v4(std::uint8_t last, std::uint16_t port) {
  attach::CmAddress address;
  address.family = AF_INET;
  address.port = port;
  address.ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, last};
  return address;
}

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

TEST(DatagramWire, IntroductionOfIpv4) {
  const auto header = encode_introduction(
      {.kind = IntroductionKind::kControl, .qpn = 0x123456, .address = v4(2, 0)});
  const auto expected = bytes_of({0x55, 0x55, 0x55, 0x55, 4, 7, 16, 0, 0, 0x12, 0x34, 0x56, 127, 0,
                                  0, 2});
  EXPECT_EQ(std::vector(header.span().begin(), header.span().end()), expected);
  const auto back = decode_introduction(expected);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->introduction.qpn, 0x123456u);
  EXPECT_EQ(back->introduction.kind, IntroductionKind::kControl);
  EXPECT_EQ(back->introduction.address, v4(2, 0));
  EXPECT_EQ(back->header_bytes, 16u);
}

TEST(DatagramWire, IntroductionOfIpv6) {
  attach::CmAddress address;
  address.family = AF_INET6;
  address.ip[15] = 1;
  const auto header = encode_introduction({.qpn = 7, .address = address});
  EXPECT_EQ(header.count, 28u);
  const auto back = decode_introduction(header.span());
  ASSERT_TRUE(back);
  EXPECT_EQ(back->introduction.address, address);
  // Cut anywhere: none.
  for (std::size_t count = 0; count < header.count; ++count) {
    EXPECT_FALSE(decode_introduction(header.span().first(count)));
  }
}

TEST(DatagramWire, OtherDatagramsAreNoIntroductions) {
  const auto good = bytes_of({0x55, 0x55, 0x55, 0x55, 4, 0, 16, 0, 0, 0, 0, 1, 127, 0, 0, 1});
  ASSERT_TRUE(decode_introduction(good));
  for (const std::size_t place : {0u, 4u, 5u, 6u}) {
    auto bad = good;
    bad[place] ^= std::byte{1};
    EXPECT_FALSE(decode_introduction(bad)) << place;
  }
}

TEST(DatagramWire, SourceOfAMessage) {
  const auto header = encode_source(v4(3, 0x1234));
  const auto expected = bytes_of({4, 8, 0x12, 0x34, 127, 0, 0, 3});
  EXPECT_EQ(std::vector(header.span().begin(), header.span().end()), expected);
  const auto back = decode_source(expected);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->source, v4(3, 0x1234));
  EXPECT_FALSE(decode_source(std::span{expected}.first(7)));
  auto bad = expected;
  bad[1] = std::byte{24};
  EXPECT_FALSE(decode_source(bad));
}

}  // namespace
}  // namespace isthmus::rdmacm
