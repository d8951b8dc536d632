// Goal: the IP and UDP headers we put before a captured payload are those it travelled under, so
// that its ICRC stays right; a line names what the packet is.
// Method: a packet made by the wire module with its ICRC, written, found again in the block.
#include "apps/isthmus_capture_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "wire/icrc.h"
#include "wire/ip.h"
#include "wire/roce_packet.h"

namespace isthmus::apps {
namespace {

using ::testing::HasSubstr;

control::PacketReport packet(const char* source, const char* destination, std::uint16_t ip_id) {
  control::PacketReport report{.timestamp_ns = 3'661'000'000'042,
                               .source = wire::IpAddress::parse(source).value(),
                               .destination = wire::IpAddress::parse(destination).value(),
                               .source_port = 4791,
                               .ip_id = ip_id,
                               .process_id = 7,
                               .local_qpn = 0x4001};
  const std::vector<std::byte> data(100, std::byte{0x5a});
  wire::RocePacket roce;
  roce.bth.opcode = wire::Opcode::kRcSendOnly;
  roce.bth.dest_qpn = 0x8001;
  roce.bth.psn = 17;
  roce.payload = data;
  report.payload.resize(wire::kMaxRoceBytes);
  const std::size_t bytes = wire::encode_roce(roce, report.payload.data());
  report.payload.resize(bytes + wire::kIcrcBytes);
  const std::uint32_t icrc = wire::icrc({.source = report.source,
                                         .destination = report.destination,
                                         .source_port = report.source_port},
                                        std::span{report.payload}.first(bytes), ip_id);
  wire::store_le32(report.payload.data() + bytes, icrc);
  report.original_bytes = static_cast<std::uint32_t>(report.payload.size());
  return report;
}

// The captured bytes of an enhanced packet block: after its 28-byte head (pcapng, 4.3).
std::span<const std::byte> captured(const std::vector<std::byte>& block) {
  return std::span{block}.subspan(28, wire::load_le32(block.data() + 20));
}

TEST(CaptureFile, HeadersOfIpv4KeepTheIcrcRight) {
  const auto report = packet("10.0.0.1", "10.0.0.2", 3);
  const auto block = capture_block(report);
  const auto bytes = captured(block);
  const auto ip = wire::decode_ipv4(bytes);
  ASSERT_TRUE(ip);
  EXPECT_EQ(ip->id, 3);
  EXPECT_EQ(ip->flags_fragment, wire::kIpv4DontFragment);
  EXPECT_EQ(ip->total_bytes, bytes.size());
  const auto udp = wire::decode_udp(bytes.subspan(wire::kIpv4Bytes));
  ASSERT_TRUE(udp);
  EXPECT_EQ(udp->destination_port, 4791);
  const auto payload = bytes.subspan(wire::kIpv4Bytes + wire::kUdpBytes);
  EXPECT_TRUE(std::ranges::equal(payload, report.payload));
  EXPECT_EQ(wire::icrc({.source = wire::IpAddress::from_v4(ip->source),
                        .destination = wire::IpAddress::from_v4(ip->destination),
                        .source_port = udp->source_port},
                       payload.first(payload.size() - 4), ip->id),
            wire::load_le32(payload.data() + payload.size() - 4));
}

TEST(CaptureFile, Ipv6AndBothInterfaces) {
  auto report = packet("fd00::1", "fd00::2", 0);
  auto block = capture_block(report);
  const auto ip = wire::decode_ipv6(captured(block));
  ASSERT_TRUE(ip);
  EXPECT_EQ(ip->destination.to_string(), "fd00::2");
  EXPECT_EQ(wire::load_le32(block.data() + 8), 0u);  // The interface of the RoCE channel.
  report.memory_channel = true;
  block = capture_block(report);
  EXPECT_EQ(wire::load_le32(block.data() + 8), 1u);
}

TEST(CaptureFile, ACutPacketKeepsItsLength) {
  auto report = packet("10.0.0.1", "10.0.0.2", 0);
  report.payload.resize(64);
  const auto block = capture_block(report);
  EXPECT_EQ(wire::load_le32(block.data() + 20), 28u + 64u);                    // Kept.
  EXPECT_EQ(wire::load_le32(block.data() + 24), 28u + report.original_bytes);  // On the wire.
}

TEST(CaptureFile, LinesNameThePacket) {
  EXPECT_EQ(packet_line(packet("10.0.0.1", "10.0.0.2", 0)).substr(0, 62),
            "01:01:01.000000042 out roce   10.0.0.1 > 10.0.0.2 RC SEND Only");
  auto broken = packet("10.0.0.1", "10.0.0.2", 0);
  broken.payload.resize(5);
  EXPECT_THAT(packet_line(broken), HasSubstr("malformed"));
}

}  // namespace
}  // namespace isthmus::apps
