// Goal: RoCE packets survive a round trip, and bytes that are none are refused with the reason.
// Method: random headers for every opcode; then one defect at a time, and every cut.
#include "wire/roce_packet.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace isthmus::wire {
namespace {

std::vector<std::byte> random_bytes(std::mt19937& random, std::size_t count) {
  std::vector<std::byte> bytes(count);
  std::ranges::generate(bytes, [&] { return static_cast<std::byte>(random()); });
  return bytes;
}

std::uint64_t random64(std::mt19937& random) { return std::uint64_t{random()} << 32 | random(); }

// Every header filled, whether the opcode has it or not.
RocePacket random_packet(std::mt19937& random, Opcode opcode) {
  const auto r8 = [&] { return static_cast<std::uint8_t>(random()); };
  const auto r24 = [&] { return static_cast<std::uint32_t>(random() & 0xff'ffff); };
  const auto r32 = [&] { return static_cast<std::uint32_t>(random()); };
  RocePacket packet;
  packet.bth = {.opcode = opcode,
                .solicited = (random() & 1) != 0,
                .migreq = (random() & 1) != 0,
                .pkey = static_cast<std::uint16_t>(random()),
                .fecn = (random() & 1) != 0,
                .becn = (random() & 1) != 0,
                .reserved6 = static_cast<std::uint8_t>(random() & 0x3f),
                .dest_qpn = r24(),
                .ack_request = (random() & 1) != 0,
                .reserved7 = static_cast<std::uint8_t>(random() & 0x7f),
                .psn = r24()};
  packet.reth = {.va = random64(random), .rkey = r32(), .length = r32()};
  packet.atomic = {.va = random64(random),
                   .rkey = r32(),
                   .swap_add = random64(random),
                   .compare = random64(random)};
  packet.aeth = {.syndrome = r8(), .msn = r24()};
  packet.atomic_ack = {.original = random64(random)};
  packet.deth = {.qkey = r32(), .reserved = r8(), .src_qpn = r24()};
  packet.imm = {.network_order = r32()};
  packet.ieth = {.rkey = r32()};
  packet.xrc = {.reserved = r8(), .srq_number = r24()};
  packet.feth = {.raw = r32()};
  return packet;
}

template <class Header>
Header if_present(bool present, const Header& header) {
  return present ? header : Header{};
}

TEST(RocePacket, SurvivesARoundTripWithEveryOpcode) {
  std::mt19937 random(1);
  for (int raw = 0; raw < 256; ++raw) {
    const auto opcode = static_cast<Opcode>(raw);
    const OpcodeInfo& op = info(opcode);
    if (!op.valid) continue;
    for (std::size_t payload_bytes = 0; payload_bytes < 9; ++payload_bytes) {
      if (payload_bytes != 0 && !op.has_payload) break;
      RocePacket sent = random_packet(random, opcode);
      const std::vector<std::byte> payload = random_bytes(random, payload_bytes);
      sent.payload = payload;
      sent.bth.pad_count = 3;  // Stale: encode_roce knows better.
      std::vector<std::byte> wire(kMaxHeaderBytes + 16, std::byte{0xff});
      wire.resize(encode_roce(sent, wire.data()) + kIcrcBytes);
      ASSERT_EQ(wire.size() % 4, 0u);
      for (std::size_t pad = 0; pad < pad_count(payload_bytes); ++pad) {
        EXPECT_EQ(wire[op.header_bytes + payload_bytes + pad], std::byte{0});
      }

      const auto received = decode_roce(wire);
      ASSERT_TRUE(received.has_value()) << raw << ": " << to_string(received.error());
      sent.bth.pad_count = pad_count(payload_bytes);
      EXPECT_EQ(received->bth, sent.bth);
      // Expect: the headers of the opcode as sent, the others zero.
      EXPECT_EQ(received->reth, if_present(op.has_reth, sent.reth));
      EXPECT_EQ(received->atomic, if_present(op.has_atomic_eth, sent.atomic));
      EXPECT_EQ(received->aeth, if_present(op.has_aeth, sent.aeth));
      EXPECT_EQ(received->atomic_ack, if_present(op.has_atomic_ack_eth, sent.atomic_ack));
      EXPECT_EQ(received->deth, if_present(op.has_deth, sent.deth));
      EXPECT_EQ(received->imm, if_present(op.has_immediate, sent.imm));
      EXPECT_EQ(received->ieth, if_present(op.has_invalidate, sent.ieth));
      EXPECT_EQ(received->xrc, if_present(op.has_xrceth, sent.xrc));
      EXPECT_EQ(received->feth, if_present(op.has_feth, sent.feth));
      EXPECT_TRUE(std::ranges::equal(received->payload, payload));
    }
  }
}

TEST(RocePacket, MasksWhatDoesNotFitTheField) {
  // Values too wide must not spill into the neighbours: PSNs and QPNs are computed with 32 bits.
  RocePacket packet;
  packet.bth = {.opcode = Opcode::kUdSendOnly, .dest_qpn = 0xff00'0005, .psn = 0x0100'0000};
  packet.deth.src_qpn = 0xff00'0007;
  std::byte wire[kMaxHeaderBytes + kIcrcBytes] = {};
  const std::size_t header_bytes = encode_headers(packet, wire);
  const auto received = decode_roce({wire, header_bytes + kIcrcBytes});
  ASSERT_TRUE(received.has_value());
  EXPECT_EQ(received->bth, (Bth{.opcode = Opcode::kUdSendOnly, .dest_qpn = 5, .psn = 0}));
  EXPECT_EQ(received->deth, (Deth{.src_qpn = 7}));
}

TEST(RocePacket, RefusesEveryCut) {
  std::mt19937 random(2);
  for (const Opcode opcode :
       {Opcode::kRcAck, Opcode::kXrcCompareSwap, Opcode::kUdSendOnlyImm, Opcode::kRcWriteOnlyImm}) {
    const RocePacket packet = random_packet(random, opcode);
    std::vector<std::byte> wire(kMaxHeaderBytes);
    wire.resize(encode_headers(packet, wire.data()) + kIcrcBytes);
    ASSERT_TRUE(decode_roce(wire).has_value());
    for (std::size_t bytes = 0; bytes < wire.size(); ++bytes) {
      // A copy of the exact size, for the address sanitizer.
      const std::vector<std::byte> cut(wire.begin(), wire.begin() + static_cast<long>(bytes));
      ASSERT_FALSE(decode_roce(cut).has_value());
      EXPECT_EQ(decode_roce(cut).error(), DecodeError::kTooShort) << bytes;
    }
  }
}

TEST(RocePacket, SaysWhatIsWrong) {
  const auto error_of = [](RocePacket packet, std::size_t payload_bytes, int raw_opcode = -1) {
    std::vector<std::byte> wire(kMaxHeaderBytes);
    wire.resize(encode_headers(packet, wire.data()) + payload_bytes + kIcrcBytes);
    if (raw_opcode >= 0) wire[0] = static_cast<std::byte>(raw_opcode);
    const auto result = decode_roce(wire);
    return result ? std::nullopt : std::optional(result.error());
  };
  RocePacket send;
  EXPECT_EQ(error_of(send, 8), std::nullopt);
  EXPECT_EQ(error_of(send, 7), DecodeError::kBadLength);
  EXPECT_EQ(error_of(send, 8, 0x15), DecodeError::kUnknownOpcode);
  EXPECT_EQ(error_of(send, 8, 0x44), DecodeError::kUnknownOpcode) << "reliable datagram";
  send.bth.transport_version = 1;
  EXPECT_EQ(error_of(send, 8), DecodeError::kBadVersion);
  RocePacket padded;
  padded.bth.pad_count = 3;
  EXPECT_EQ(error_of(padded, 4), std::nullopt);
  EXPECT_EQ(error_of(padded, 0), DecodeError::kBadPadding);
  RocePacket ack;
  ack.bth.opcode = Opcode::kRcAck;
  EXPECT_EQ(error_of(ack, 4), DecodeError::kTrailingBytes);
}

TEST(RocePacket, PadsToMultiplesOfFour) {
  EXPECT_EQ(pad_count(0), 0);
  EXPECT_EQ(pad_count(1), 3);
  EXPECT_EQ(pad_count(2), 2);
  EXPECT_EQ(pad_count(3), 1);
  EXPECT_EQ(pad_count(4096), 0);
}

}  // namespace
}  // namespace isthmus::wire
