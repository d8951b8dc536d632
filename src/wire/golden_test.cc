// Goal: what Linux soft-RoCE sends is what we would send: every packet of the golden traces
// decodes,
//       encodes to the same bytes, and has the ICRC that we compute.
// Method: replay tests/golden; the IP IDs recovered blindly are compared with the true ones.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "wire/byte_order.h"
#include "wire/cm_message.h"
#include "wire/icrc.h"
#include "wire/mad.h"
#include "wire/pcap.h"
#include "wire/rdma_cm_header.h"
#include "wire/roce_frame.h"
#include "wire/roce_packet.h"

namespace isthmus::wire {
namespace {

struct Trace {
  std::vector<char> file;
  std::vector<PcapPacket> packets;
};

Trace load(const std::string& name) {
  Trace trace;
  std::ifstream stream(std::string(ISTHMUS_SOURCE_DIR "/tests/golden/") + name, std::ios::binary);
  trace.file.assign(std::istreambuf_iterator<char>(stream), {});
  auto reader = PcapReader::create(std::as_bytes(std::span(trace.file)));
  EXPECT_TRUE(reader.has_value()) << name;
  if (!reader) return trace;
  EXPECT_EQ(reader->link_type(), kLinkTypeEthernet);
  for (;;) {
    const auto packet = reader->next();
    EXPECT_TRUE(packet.has_value());
    if (!packet || !*packet) return trace;
    trace.packets.push_back(**packet);
  }
}

class Golden : public testing::TestWithParam<std::pair<const char*, std::size_t>> {};

TEST_P(Golden, DecodesAndEncodesToTheSameBytes) {
  const Trace trace = load(GetParam().first);
  ASSERT_EQ(trace.packets.size(), GetParam().second);
  for (const PcapPacket& captured : trace.packets) {
    const auto frame = decode_roce_frame(captured.data);
    ASSERT_TRUE(frame.has_value()) << to_string(frame.error());
    const auto packet = decode_roce(frame->udp_payload);
    ASSERT_TRUE(packet.has_value()) << to_string(packet.error());

    std::vector<std::byte> again(captured.data.size() + kMaxHeaderBytes);
    std::size_t bytes = encode_roce_frame_headers(*frame, again.data());
    const std::size_t roce = bytes;
    bytes += encode_roce(*packet, again.data() + bytes);
    const std::span<const std::byte> covered(again.data() + roce, bytes - roce);
    store_le32(again.data() + bytes, icrc(frame->flow, covered, frame->ip_id));
    again.resize(bytes + kIcrcBytes);
    EXPECT_TRUE(std::ranges::equal(again, captured.data));
  }
}

TEST_P(Golden, HasRightIcrcsAndTellsItsIpIds) {
  const Trace trace = load(GetParam().first);
  IcrcVerifier verifier;
  for (const PcapPacket& captured : trace.packets) {
    const auto frame = decode_roce_frame(captured.data);
    ASSERT_TRUE(frame.has_value());
    const IcrcVerdict verdict = verifier.verify(frame->flow, frame->udp_payload);
    EXPECT_TRUE(verdict.accepted());
    EXPECT_EQ(verdict.ip_id, frame->ip_id);
    EXPECT_EQ(verdict.dont_fragment, frame->dont_fragment);
  }
}

INSTANTIATE_TEST_SUITE_P(Traces, Golden,
                         testing::Values(std::pair("rxe-rping.pcap", 53u),
                                         std::pair("rxe-atomics-ud.pcap", 20u)));

// The connection messages of a trace, with their transaction ids.
struct CmPacket {
  CmMessage message;
  std::uint64_t transaction_id;
  std::span<const std::byte> mad;
};

std::vector<CmPacket> cm_packets(const Trace& trace) {
  std::vector<CmPacket> result;
  for (const PcapPacket& captured : trace.packets) {
    const auto frame = decode_roce_frame(captured.data);
    const auto packet = frame ? decode_roce(frame->udp_payload) : std::unexpected(frame.error());
    if (!packet || packet->bth.dest_qpn != kGsiQpn) continue;
    EXPECT_EQ(packet->deth.qkey, kGsiQkey);
    EXPECT_EQ(packet->deth.src_qpn, kGsiQpn);
    const auto header = decode_mad_header(packet->payload);
    const auto message = decode_cm(packet->payload);
    EXPECT_TRUE(header.has_value() && message.has_value());
    if (header && message) {
      result.push_back({*message, header->transaction_id, packet->payload});
    }
  }
  return result;
}

TEST(GoldenCm, EncodesToTheSameBytes) {
  const Trace trace = load("rxe-rping.pcap");
  std::string names;
  for (const CmPacket& packet : cm_packets(trace)) {
    names += std::string(name_of(packet.message)) + ' ';
    std::array<std::byte, kMadBytes> again;
    encode_cm(packet.message, packet.transaction_id, again);
    EXPECT_TRUE(std::ranges::equal(again, packet.mad)) << name_of(packet.message);
  }
  EXPECT_EQ(names, "REQ REP RTU DREQ DREP ");
}

TEST(GoldenCm, HasTheFieldsThatTsharkShows) {
  const Trace trace = load("rxe-rping.pcap");
  const std::vector<CmPacket> packets = cm_packets(trace);
  ASSERT_EQ(packets.size(), 5u);
  const CmReq& req = std::get<CmReq>(packets[0].message);
  EXPECT_EQ(req.local_comm_id, 0xf957'11fau);
  EXPECT_EQ(req.service_id, rdma_cm_service_id(PortSpace::kTcp, 0x1c06));
  EXPECT_EQ(req.local_qpn, 0x11u);
  EXPECT_EQ(req.responder_resources, 1);
  EXPECT_EQ(req.initiator_depth, 1);
  EXPECT_EQ(req.remote_cm_response_timeout, 0x14);
  EXPECT_EQ(req.transport, CmTransport::kRc);
  EXPECT_EQ(req.starting_psn, 0xaa'4bcdu);
  EXPECT_EQ(req.local_cm_response_timeout, 0x14);
  EXPECT_EQ(req.retry_count, 7);
  EXPECT_EQ(req.pkey, 0xffff);
  EXPECT_EQ(req.path_mtu, 3);
  EXPECT_EQ(req.rnr_retry_count, 7);
  EXPECT_EQ(req.max_cm_retries, 15);
  EXPECT_FALSE(req.srq);
  EXPECT_EQ(req.primary.local_gid.to_string(), "10.98.0.12");
  EXPECT_EQ(req.primary.remote_gid.to_string(), "10.98.0.11");
  // tshark 4.0 reads these two from the wrong bytes (0x006b5 and 0x2b); the bytes are 6b 54 70 00.
  EXPECT_EQ(req.primary.flow_label, 0x6'b547u);
  EXPECT_EQ(req.primary.packet_rate, 0);
  EXPECT_EQ(req.primary.hop_limit, 64);
  EXPECT_EQ(req.primary.local_ack_timeout, 0x13);
  EXPECT_EQ(req.alternate, CmPath{});
  const auto ip = decode_rdma_cm_header(req.private_data);
  ASSERT_TRUE(ip.has_value());
  EXPECT_EQ(*ip, (RdmaCmHeader{.source_port = 0xba9f,
                               .source = *IpAddress::parse("10.98.0.12"),
                               .destination = *IpAddress::parse("10.98.0.11")}));
  const CmDreq& dreq = std::get<CmDreq>(packets[3].message);
  EXPECT_EQ(dreq.remote_qpn, 0x11u);
}

// Not where its sender begins.
TEST(GoldenCm, TheStartingPsnIsWhereItsReceiverBegins) {
  const Trace trace = load("rxe-rping.pcap");
  const std::vector<CmPacket> packets = cm_packets(trace);
  const CmReq& req = std::get<CmReq>(packets[0].message);
  const CmRep& rep = std::get<CmRep>(packets[1].message);
  std::map<IpAddress, std::uint32_t> first_request;
  for (const PcapPacket& captured : trace.packets) {
    const auto frame = decode_roce_frame(captured.data);
    const auto packet = frame ? decode_roce(frame->udp_payload) : std::unexpected(frame.error());
    if (!packet || packet->bth.dest_qpn == kGsiQpn || !info(packet->bth.opcode).request) continue;
    first_request.try_emplace(frame->flow.source, packet->bth.psn);
  }
  EXPECT_EQ(first_request[req.primary.local_gid], rep.starting_psn);
  EXPECT_EQ(first_request[req.primary.remote_gid], req.starting_psn);
}

}  // namespace
}  // namespace isthmus::wire
