// Goal: every CM message survives a round trip, its fields lie where the specification has them,
// and
//       other MADs are refused.
// Method: random messages both ways; single fields set to ones and looked up in the bytes by table.
#include "wire/cm_message.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "wire/byte_order.h"
#include "wire/rdma_cm_header.h"

namespace isthmus::wire {
namespace {

using Mad = std::array<std::byte, kMadBytes>;

Mad random_mad(std::mt19937& random, CmAttribute attribute) {
  Mad mad;
  std::ranges::generate(mad, [&] { return static_cast<std::byte>(random()); });
  encode(MadHeader{.transaction_id = 0x1122'3344'5566'7788,
                   .attribute_id = static_cast<std::uint16_t>(attribute)},
         mad.data());
  return mad;
}

constexpr CmAttribute kAll[] = {
    CmAttribute::kReq, CmAttribute::kMra,  CmAttribute::kRej,     CmAttribute::kRep,
    CmAttribute::kRtu, CmAttribute::kDreq, CmAttribute::kDrep,    CmAttribute::kSidrReq,
    CmAttribute::kLap, CmAttribute::kApr,  CmAttribute::kSidrRep,
};

TEST(CmMessage, SurvivesARoundTrip) {
  std::mt19937 random(1);
  for (const CmAttribute attribute : kAll) {
    for (int round = 0; round < 50; ++round) {
      const auto message = decode_cm(random_mad(random, attribute));
      ASSERT_TRUE(message.has_value());
      ASSERT_EQ(attribute_of(*message), attribute);
      Mad again;
      encode_cm(*message, 0x1122'3344'5566'7788, again);
      EXPECT_EQ(decode_cm(again), *message) << name_of(*message);
      EXPECT_EQ(decode_mad_header(again)->transaction_id, 0x1122'3344'5566'7788u);
      // Bytes once normalised (reserved bits gone) stay as they are.
      Mad third;
      encode_cm(*decode_cm(again), 0x1122'3344'5566'7788, third);
      EXPECT_EQ(third, again);
    }
  }
}

// The 232 bytes after the MAD header, with one bit set for each that a message can express.
std::size_t expressible_bits(CmAttribute attribute) {
  Mad ones;
  ones.fill(std::byte{0xff});
  encode(MadHeader{.attribute_id = static_cast<std::uint16_t>(attribute)}, ones.data());
  Mad again;
  encode_cm(*decode_cm(ones), 0, again);
  std::size_t bits = 0;
  for (const std::byte byte : std::span(again).subspan(kMadHeaderBytes)) {
    bits += static_cast<std::size_t>(__builtin_popcount(std::to_integer<unsigned>(byte)));
  }
  return bits;
}

TEST(CmMessage, CoversAllButTheReservedBits) {
  constexpr std::size_t kDataBits = 232 * 8;
  // Reserved, from the tables: whole words, the rest of short fields, and tails.
  EXPECT_EQ(expressible_bits(CmAttribute::kReq), kDataBits - 32 - 32 - (3 + 3) - (3 + 2));
  EXPECT_EQ(expressible_bits(CmAttribute::kMra), kDataBits - 6 - 3);
  EXPECT_EQ(expressible_bits(CmAttribute::kRej), kDataBits - 6 - 1);
  EXPECT_EQ(expressible_bits(CmAttribute::kRep), kDataBits - 8 - 8 - 8 - 4);
  EXPECT_EQ(expressible_bits(CmAttribute::kRtu), kDataBits);
  EXPECT_EQ(expressible_bits(CmAttribute::kDreq), kDataBits - 8);
  EXPECT_EQ(expressible_bits(CmAttribute::kDrep), kDataBits);
  EXPECT_EQ(expressible_bits(CmAttribute::kLap), kDataBits - 32 - 3 - 32 - 2 - 3 - 3);
  EXPECT_EQ(expressible_bits(CmAttribute::kApr), kDataBits - 16);
  EXPECT_EQ(expressible_bits(CmAttribute::kSidrReq), kDataBits - 16);
  EXPECT_EQ(expressible_bits(CmAttribute::kSidrRep), kDataBits - 16 - 8);
}

// The bytes of a message, from the end of the MAD header.
std::vector<std::byte> data_of(const CmMessage& message) {
  Mad mad;
  encode_cm(message, 0, mad);
  return {mad.begin() + kMadHeaderBytes, mad.end()};
}

TEST(CmMessage, PutsReqFieldsWhereTheTableHasThem) {
  CmReq req{.local_comm_id = 0x0102'0304,
            .service_id = 0x0000'0000'0106'1c06,
            .local_qpn = 0xab'cdef,
            .responder_resources = 0x12,
            .initiator_depth = 0x34,
            .remote_cm_response_timeout = 0x15,
            .transport = CmTransport::kExtended,
            .starting_psn = 0x12'3456,
            .local_cm_response_timeout = 0x0a,
            .retry_count = 5,
            .path_mtu = 3,
            .rnr_retry_count = 7,
            .max_cm_retries = 15,
            .srq = true,
            .extended_transport_type = kExtendedTransportXrc};
  req.private_data[0] = std::byte{0xee};
  const std::vector<std::byte> data = data_of(req);
  EXPECT_EQ(load_be32(&data[0]), 0x0102'0304u);
  EXPECT_EQ(load_be64(&data[8]), 0x0106'1c06u);
  EXPECT_EQ(load_be32(&data[32]), 0xabcd'ef12u) << "QPN and responder resources";
  EXPECT_EQ(data[39], std::byte{0x34});
  EXPECT_EQ(data[43], std::byte{0xae}) << "10101 11 0";
  EXPECT_EQ(load_be32(&data[44]), 0x1234'5655u) << "PSN, then 01010 101";
  EXPECT_EQ(load_be16(&data[48]), 0xffff);
  EXPECT_EQ(data[50], std::byte{0x37}) << "0011 0 111";
  EXPECT_EQ(data[51], std::byte{0xf9}) << "1111 1 001";
  EXPECT_EQ(data[140], std::byte{0xee});
}

TEST(CmMessage, PutsReplyFieldsWhereTheTablesHaveThem) {
  const std::vector<std::byte> rep = data_of(CmRep{.local_qpn = 0x01'0203,
                                                   .starting_psn = 0x04'0506,
                                                   .target_ack_delay = 0x1f,
                                                   .failover_accepted = 2,
                                                   .rnr_retry_count = 7,
                                                   .srq = true,
                                                   .local_ca_guid = 0x1111'2222'3333'4444});
  EXPECT_EQ(load_be24(&rep[12]), 0x01'0203u);
  EXPECT_EQ(load_be24(&rep[20]), 0x04'0506u);
  EXPECT_EQ(rep[26], std::byte{0xfc});
  EXPECT_EQ(rep[27], std::byte{0xf0});
  EXPECT_EQ(load_be64(&rep[28]), 0x1111'2222'3333'4444u);

  const std::vector<std::byte> rej = data_of(CmRej{.message_rejected = RejectedMessage::kOther,
                                                   .rejected_info_bytes = 72,
                                                   .reason = RejectReason::kConsumerReject});
  EXPECT_EQ(load_be32(&rej[8]), 0x8090'001cu);

  const std::vector<std::byte> mra =
      data_of(CmMra{.message_mraed = MraMessage::kRep, .service_timeout = 24});
  EXPECT_EQ(load_be16(&mra[8]), 0x40c0);

  const std::vector<std::byte> sidr = data_of(CmSidrRep{.request_id = 1,
                                                        .status = SidrStatus::kNoQp,
                                                        .additional_information_bytes = 9,
                                                        .qpn = 0xaa'bbcc,
                                                        .service_id = 0x0111'0007,
                                                        .qkey = 0x0123'4567});
  EXPECT_EQ(load_be16(&sidr[4]), 0x0309);
  EXPECT_EQ(load_be24(&sidr[8]), 0xaa'bbccu);
  EXPECT_EQ(load_be64(&sidr[12]), 0x0111'0007u);
  EXPECT_EQ(load_be32(&sidr[20]), 0x0123'4567u);
}

TEST(CmMessage, PutsIdentifiersWhereTheTablesHaveThem) {
  // All but REQ and SIDR start with the sender's id and then the receiver's.
  const CmMessage messages[] = {CmMra{.local_comm_id = 0x0101'0101, .remote_comm_id = 2},
                                CmRej{.local_comm_id = 0x0101'0101, .remote_comm_id = 2},
                                CmRep{.local_comm_id = 0x0101'0101, .remote_comm_id = 2},
                                CmRtu{.local_comm_id = 0x0101'0101, .remote_comm_id = 2},
                                CmDreq{.local_comm_id = 0x0101'0101, .remote_comm_id = 2},
                                CmDrep{.local_comm_id = 0x0101'0101, .remote_comm_id = 2},
                                CmLap{.local_comm_id = 0x0101'0101, .remote_comm_id = 2},
                                CmApr{.local_comm_id = 0x0101'0101, .remote_comm_id = 2}};
  for (const CmMessage& message : messages) {
    EXPECT_EQ(load_be64(data_of(message).data()), 0x0101'0101'0000'0002u) << name_of(message);
  }
  const std::vector<std::byte> sidr =
      data_of(CmSidrReq{.request_id = 7, .pkey = 0x8001, .service_id = 0x0111'0007});
  EXPECT_EQ(load_be64(&sidr[0]), 0x0000'0007'8001'0000u);
  EXPECT_EQ(load_be64(&sidr[8]), 0x0111'0007u);
  const std::vector<std::byte> dreq = data_of(CmDreq{.remote_qpn = 0xab'cdef});
  EXPECT_EQ(load_be32(&dreq[8]), 0xabcd'ef00u);
  const std::vector<std::byte> apr =
      data_of(CmApr{.additional_information_bytes = 5, .status = AprStatus::kInvalidSl});
  EXPECT_EQ(load_be32(&apr[8]), 0x050d'0000u);
}

TEST(CmMessage, PutsPathFieldsWhereTheTablesHaveThem) {
  const CmPath path{.local_lid = 0x0102,
                    .remote_lid = 0x0304,
                    .flow_label = 0xa'bcde,
                    .packet_rate = 0x2a,
                    .traffic_class = 0x77,
                    .hop_limit = 64,
                    .sl = 9,
                    .subnet_local = true,
                    .local_ack_timeout = 19};
  const std::vector<std::byte> req = data_of(CmReq{.alternate = path});
  EXPECT_EQ(load_be32(&req[96]), 0x0102'0304u);
  EXPECT_EQ(load_be32(&req[132]), 0xabcd'e02au);
  EXPECT_EQ(load_be32(&req[136]), 0x7740'9898u);
  const std::vector<std::byte> lap =
      data_of(CmLap{.remote_qpn = 0x01'0203, .remote_cm_response_timeout = 20, .alternate = path});
  EXPECT_EQ(load_be32(&lap[12]), 0x0102'03a0u);
  EXPECT_EQ(load_be32(&lap[20]), 0x0102'0304u);
  EXPECT_EQ(load_be32(&lap[56]), 0xabcd'e077u);
  EXPECT_EQ(load_be32(&lap[60]), 0x402a'9898u);
}

TEST(CmMessage, RefusesOtherMads) {
  std::mt19937 random(2);
  const Mad good = random_mad(random, CmAttribute::kRtu);
  ASSERT_TRUE(decode_cm(good).has_value());
  const auto error_with = [&](std::size_t offset, int value) {
    Mad bad = good;
    bad[offset] = static_cast<std::byte>(value);
    return decode_cm(bad).error();
  };
  EXPECT_EQ(error_with(0, 2), DecodeError::kBadVersion);
  EXPECT_EQ(error_with(1, 3), DecodeError::kUnknownMessage) << "subnet administration";
  EXPECT_EQ(error_with(2, 1), DecodeError::kBadVersion);
  EXPECT_EQ(error_with(3, 1), DecodeError::kUnknownMessage) << "Get";
  EXPECT_EQ(error_with(17, 0x0f), DecodeError::kUnknownMessage);
  EXPECT_EQ(error_with(17, 0x1b), DecodeError::kUnknownMessage);
  EXPECT_EQ(decode_cm(std::span(good).first(255)).error(), DecodeError::kTooShort);
  EXPECT_EQ(decode_cm(std::vector<std::byte>(257)).error(), DecodeError::kBadLength);
}

TEST(Mad, HeaderSurvivesARoundTrip) {
  const MadHeader header{.management_class = 1,
                         .class_version = 2,
                         .method = 3,
                         .status = 0x0405,
                         .class_specific = 0x0607,
                         .transaction_id = 0x0809'0a0b'0c0d'0e0f,
                         .attribute_id = 0x1011,
                         .reserved = 0x1213,
                         .attribute_modifier = 0x1415'1617};
  Mad mad{};
  EXPECT_EQ(encode(header, mad.data()), kMadHeaderBytes);
  EXPECT_EQ(decode_mad_header(mad), header);
  EXPECT_EQ(load_be64(mad.data()), 0x0101'0203'0405'0607u);
  EXPECT_EQ(load_be64(mad.data() + 16), 0x1011'1213'1415'1617u);
}

TEST(CmMessage, NamesRejectReasons) {
  EXPECT_STREQ(to_string(RejectReason::kConsumerReject), "consumer reject");
  EXPECT_STREQ(to_string(RejectReason::kStaleConnection), "stale connection");
  EXPECT_STREQ(to_string(RejectReason::kInvalidServiceId), "invalid service id");
  EXPECT_STREQ(to_string(RejectReason::kVendorOptionNotSupported), "vendor option not supported");
  EXPECT_STREQ(to_string(RejectReason{0}), "unknown reason");
  EXPECT_STREQ(to_string(RejectReason{34}), "unknown reason");
  EXPECT_STREQ(to_string(RejectReason{999}), "unknown reason");
}

TEST(RdmaCmHeader, CarriesAddressesOfBothFamilies) {
  for (const auto& [source, destination] :
       {std::pair("10.0.0.1", "10.0.0.2"), std::pair("fe80::1", "2001:db8::2")}) {
    const RdmaCmHeader header{.source_port = 4711,
                              .source = *IpAddress::parse(source),
                              .destination = *IpAddress::parse(destination)};
    std::array<std::byte, 92> private_data{};
    EXPECT_EQ(encode(header, private_data.data()), kRdmaCmHeaderBytes);
    EXPECT_EQ(decode_rdma_cm_header(private_data), header);
  }
  // Expect: IPv4 in the last four of the sixteen bytes, the others zero.
  std::byte bytes[kRdmaCmHeaderBytes];
  encode(RdmaCmHeader{.source = *IpAddress::parse("1.2.3.4"),
                      .destination = *IpAddress::parse("5.6.7.8")},
         bytes);
  EXPECT_EQ(load_be64(bytes + 8), 0u);
  EXPECT_EQ(load_be32(bytes + 16), 0x0102'0304u);
  EXPECT_EQ(load_be32(bytes + 32), 0x0506'0708u);
}

TEST(RdmaCmHeader, RefusesOtherPrivateData) {
  std::array<std::byte, kRdmaCmHeaderBytes> bytes{};
  EXPECT_EQ(decode_rdma_cm_header(bytes).error(), DecodeError::kBadVersion) << "IP version 0";
  bytes[1] = std::byte{0x40};
  EXPECT_TRUE(decode_rdma_cm_header(bytes).has_value());
  EXPECT_EQ(decode_rdma_cm_header(std::span(bytes).first(35)).error(), DecodeError::kTooShort);
  bytes[0] = std::byte{0x10};
  EXPECT_EQ(decode_rdma_cm_header(bytes).error(), DecodeError::kBadVersion);
}

TEST(RdmaCmService, IsPortSpaceAndPort) {
  EXPECT_EQ(rdma_cm_service_id(PortSpace::kTcp, 0x1c06), 0x0000'0000'0106'1c06u);
  EXPECT_EQ(parse_rdma_cm_service_id(0x0111'0050), (RdmaCmService{PortSpace::kUdp, 0x50}));
  EXPECT_EQ(parse_rdma_cm_service_id(0x0107'0050), std::nullopt);
  EXPECT_EQ(parse_rdma_cm_service_id(0x1000'0000'0106'0050), std::nullopt);
}

}  // namespace
}  // namespace isthmus::wire
