// Goal: Ethernet, IP and UDP headers, the GRH area, and frames made of them.
// Method: headers of known packets byte by byte, round trips, every cut, one defect at a time.
#include "wire/ip.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "wire/byte_order.h"
#include "wire/grh.h"
#include "wire/roce_frame.h"

namespace isthmus::wire {
namespace {

std::vector<std::byte> bytes_of(std::initializer_list<int> values) {
  std::vector<std::byte> bytes;
  for (const int value : values) bytes.push_back(static_cast<std::byte>(value));
  return bytes;
}

TEST(Ip, ComputesChecksums) {
  // The example of RFC 1071, section 3: the sum is ddf2.
  EXPECT_EQ(internet_checksum(bytes_of({0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7})), 0x220d);
  EXPECT_EQ(internet_checksum(bytes_of({0x12})), 0xedff) << "an odd byte is the upper one";
  // A widely printed IPv4 header; its checksum is b861.
  std::byte header[kIpv4Bytes];
  encode(Ipv4Header{.total_bytes = 0x73, .source = 0xc0a8'0001, .destination = 0xc0a8'00c7},
         header);
  EXPECT_EQ(load_be16(header + 10), 0xb861);
}

TEST(Ip, ComputesUdpChecksums) {
  // Over pseudo header and datagram, the checksum in its place, the sum is all ones.
  for (const auto& [source, destination] :
       {std::pair("10.0.0.1", "10.0.0.2"), std::pair("fe80::1", "fe80::2")}) {
    const IpAddress from = *IpAddress::parse(source);
    const IpAddress to = *IpAddress::parse(destination);
    std::vector<std::byte> udp(kUdpBytes + 5, std::byte{0x5a});
    encode(UdpHeader{.source_port = 1, .destination_port = 2, .total_bytes = 13}, udp.data());
    const std::uint16_t checksum = udp_checksum(from, to, udp);
    store_be16(udp.data() + 6, checksum);
    EXPECT_EQ(udp_checksum(from, to, udp), 0xffff) << "zero, written as ones";
  }
}

TEST(Ip, HeadersSurviveARoundTrip) {
  std::byte wire[kIpv6Bytes + 100] = {};
  const EthernetHeader ethernet{
      .destination = {std::byte{1}}, .source = {std::byte{2}}, .ether_type = 3};
  encode(ethernet, wire);
  EXPECT_EQ(decode_ethernet(wire), ethernet);
  const Ipv4Header v4{.tos = 1,
                      .total_bytes = 140,
                      .id = 2,
                      .flags_fragment = 0x2003,
                      .ttl = 4,
                      .protocol = 5,
                      .source = 6,
                      .destination = 7};
  encode(v4, wire);
  EXPECT_EQ(decode_ipv4(wire), v4);
  const Ipv6Header v6{.traffic_class = 0xab,
                      .flow_label = 0xc'def0,
                      .payload_bytes = 100,
                      .next_header = 5,
                      .hop_limit = 6,
                      .source = *IpAddress::parse("1::2"),
                      .destination = *IpAddress::parse("3::4")};
  encode(v6, wire);
  EXPECT_EQ(decode_ipv6(wire), v6);
  const UdpHeader udp{.source_port = 1, .destination_port = 2, .total_bytes = 140, .checksum = 4};
  encode(udp, wire);
  EXPECT_EQ(decode_udp(wire), udp);
}

TEST(Ip, SaysWhatIsWrong) {
  std::byte wire[kIpv6Bytes] = {};
  Ipv4Header v4{.total_bytes = 40};
  encode(v4, wire);
  EXPECT_TRUE(decode_ipv4(wire).has_value());
  EXPECT_EQ(decode_ipv4(std::span(wire).first(19)).error(), DecodeError::kTooShort);
  EXPECT_EQ(decode_ipv4(std::span(wire).first(39)).error(), DecodeError::kBadLength);
  wire[8] ^= std::byte{1};
  EXPECT_EQ(decode_ipv4(wire).error(), DecodeError::kBadChecksum);
  wire[0] = std::byte{0x46};
  EXPECT_EQ(decode_ipv4(wire).error(), DecodeError::kBadVersion) << "options";
  v4.total_bytes = 19;
  encode(v4, wire);
  EXPECT_EQ(decode_ipv4(wire).error(), DecodeError::kBadLength);

  EXPECT_EQ(decode_ipv6(wire).error(), DecodeError::kBadVersion);
  encode(Ipv6Header{.payload_bytes = 1}, wire);
  EXPECT_EQ(decode_ipv6(wire).error(), DecodeError::kBadLength);
  EXPECT_EQ(decode_ipv6(std::span(wire).first(39)).error(), DecodeError::kTooShort);

  encode(UdpHeader{.total_bytes = 7}, wire);
  EXPECT_EQ(decode_udp(wire).error(), DecodeError::kBadLength);
  encode(UdpHeader{.total_bytes = 41}, wire);
  EXPECT_EQ(decode_udp(wire).error(), DecodeError::kBadLength);
  EXPECT_EQ(decode_udp(std::span(wire).first(7)).error(), DecodeError::kTooShort);
  EXPECT_EQ(decode_ethernet(std::span(wire).first(13)).error(), DecodeError::kTooShort);
}

TEST(Grh, PutsIpv4BehindTwentyZeros) {
  const Grh grh{.source = IpAddress::from_v4(0x0a00'0001),
                .destination = IpAddress::from_v4(0x0a00'0002),
                .traffic_class = 0x20,
                .hop_limit = 63,
                .ip_id = 0x1234,
                .udp_payload_bytes = 100};
  std::array<std::byte, kGrhBytes> area;
  area.fill(std::byte{0xaa});
  encode(grh, area);
  EXPECT_TRUE(std::ranges::all_of(std::span(area).first(20),
                                  [](std::byte b) { return b == std::byte{0}; }));
  // Expect: an IPv4 header with a right checksum, whose length is that of the packet.
  std::vector<std::byte> packet(area.begin() + 20, area.end());
  packet.resize(128);
  const auto ip = decode_ipv4(packet);
  ASSERT_TRUE(ip.has_value()) << to_string(ip.error());
  EXPECT_EQ(ip->total_bytes, 128);
  EXPECT_EQ(decode_grh(area), grh);
}

TEST(Grh, IsTheIpv6Header) {
  const Grh grh{.source = *IpAddress::parse("fe80::1"),
                .destination = *IpAddress::parse("fe80::2"),
                .traffic_class = 0x20,
                .flow_label = 0xa'bcde,
                .hop_limit = 63,
                .udp_payload_bytes = 100};
  std::array<std::byte, kGrhBytes> area;
  encode(grh, area);
  EXPECT_EQ(load_be32(area.data()), 0x620a'bcdeu);
  EXPECT_EQ(decode_grh(area), grh);
}

TEST(Grh, FindsNeitherInZeros) {
  const std::array<std::byte, kGrhBytes> zeros{};
  EXPECT_EQ(decode_grh(zeros), std::nullopt);
}

// An Ethernet frame with 40 bytes of UDP payload to the RoCE port.
std::vector<std::byte> frame_bytes(const char* source, const char* destination) {
  const std::vector<std::byte> payload(40, std::byte{0x77});
  RoceFrame frame;
  frame.flow = {.source = *IpAddress::parse(source),
                .destination = *IpAddress::parse(destination),
                .source_port = 0xc000};
  frame.ip_id = 9;
  frame.udp_payload = payload;
  std::vector<std::byte> bytes(kMaxRoceFrameHeaderBytes);
  bytes.resize(encode_roce_frame_headers(frame, bytes.data()));
  bytes.insert(bytes.end(), payload.begin(), payload.end());
  return bytes;
}

TEST(RoceFrame, SurvivesARoundTrip) {
  for (const auto& [source, destination] :
       {std::pair("10.0.0.1", "10.0.0.2"), std::pair("fe80::1", "fe80::2")}) {
    std::vector<std::byte> bytes = frame_bytes(source, destination);
    bytes.resize(bytes.size() + 7);  // Ethernet pads short frames: not part of the packet.
    const auto frame = decode_roce_frame(bytes);
    ASSERT_TRUE(frame.has_value()) << to_string(frame.error());
    EXPECT_EQ(frame->flow.source.to_string(), source);
    EXPECT_EQ(frame->flow.destination.to_string(), destination);
    EXPECT_EQ(frame->flow.source_port, 0xc000);
    EXPECT_EQ(frame->udp_payload.size(), 40u);
    EXPECT_TRUE(frame->dont_fragment);
  }
}

TEST(RoceFrame, RefusesEveryCutAndOtherTraffic) {
  for (const auto& [source, destination] :
       {std::pair("10.0.0.1", "10.0.0.2"), std::pair("fe80::1", "fe80::2")}) {
    const std::vector<std::byte> whole = frame_bytes(source, destination);
    for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
      const std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<long>(bytes));
      EXPECT_FALSE(decode_roce_frame(cut).has_value()) << bytes;
    }
  }
  // A UDP length that reaches into what Ethernet padded, beyond the IP packet.
  std::vector<std::byte> other = frame_bytes("10.0.0.1", "10.0.0.2");
  other.resize(other.size() + 8);
  other[kEthernetBytes + kIpv4Bytes + 5] ^= std::byte{1};  // 48 becomes 49.
  EXPECT_EQ(decode_roce_frame(other).error(), DecodeError::kBadLength);
  // The first of several fragments: "more fragments" is set.
  other = frame_bytes("10.0.0.1", "10.0.0.2");
  auto ip = decode_ipv4(std::span(other).subspan(kEthernetBytes));
  ASSERT_TRUE(ip.has_value());
  ip->flags_fragment = 0x2000;
  encode(*ip, other.data() + kEthernetBytes);
  EXPECT_EQ(decode_roce_frame(other).error(), DecodeError::kUnknownMessage);

  other = frame_bytes("fe80::1", "fe80::2");
  other[kEthernetBytes + kIpv6Bytes + 3] ^= std::byte{1};  // The destination port.
  EXPECT_EQ(decode_roce_frame(other).error(), DecodeError::kUnknownMessage);
  other = frame_bytes("fe80::1", "fe80::2");
  other[kEthernetBytes + 6] = std::byte{6};  // TCP.
  EXPECT_EQ(decode_roce_frame(other).error(), DecodeError::kUnknownMessage);
}

}  // namespace
}  // namespace isthmus::wire
