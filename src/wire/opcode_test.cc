// Goal: every opcode has the header length that the specification's tables give it, and every other
//       value is invalid.
// Method: the lengths written out by hand against the computed table, then properties of all 256.
#include "wire/opcode.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

namespace isthmus::wire {
namespace {

// BTH 12, RETH 16, AtomicETH 28, AETH 4, AtomicAckETH 8, DETH 8, ImmDt 4, IETH 4, XRCETH 4, FETH 4.
const std::map<Opcode, int>& expected_header_bytes() {
  static const std::map<Opcode, int> expected = {
      {Opcode::kRcSendFirst, 12},
      {Opcode::kRcSendMiddle, 12},
      {Opcode::kRcSendLast, 12},
      {Opcode::kRcSendLastImm, 16},
      {Opcode::kRcSendOnly, 12},
      {Opcode::kRcSendOnlyImm, 16},
      {Opcode::kRcWriteFirst, 28},
      {Opcode::kRcWriteMiddle, 12},
      {Opcode::kRcWriteLast, 12},
      {Opcode::kRcWriteLastImm, 16},
      {Opcode::kRcWriteOnly, 28},
      {Opcode::kRcWriteOnlyImm, 32},
      {Opcode::kRcReadRequest, 28},
      {Opcode::kRcReadResponseFirst, 16},
      {Opcode::kRcReadResponseMiddle, 12},
      {Opcode::kRcReadResponseLast, 16},
      {Opcode::kRcReadResponseOnly, 16},
      {Opcode::kRcAck, 16},
      {Opcode::kRcAtomicAck, 24},
      {Opcode::kRcCompareSwap, 40},
      {Opcode::kRcFetchAdd, 40},
      {Opcode::kRcSendLastInvalidate, 16},
      {Opcode::kRcSendOnlyInvalidate, 16},
      {Opcode::kRcFlush, 32},
      {Opcode::kRcAtomicWrite, 28},
      {Opcode::kUcSendFirst, 12},
      {Opcode::kUcSendMiddle, 12},
      {Opcode::kUcSendLast, 12},
      {Opcode::kUcSendLastImm, 16},
      {Opcode::kUcSendOnly, 12},
      {Opcode::kUcSendOnlyImm, 16},
      {Opcode::kUcWriteFirst, 28},
      {Opcode::kUcWriteMiddle, 12},
      {Opcode::kUcWriteLast, 12},
      {Opcode::kUcWriteLastImm, 16},
      {Opcode::kUcWriteOnly, 28},
      {Opcode::kUcWriteOnlyImm, 32},
      {Opcode::kUdSendOnly, 20},
      {Opcode::kUdSendOnlyImm, 24},
      {Opcode::kCnp, 12},
      {Opcode::kXrcSendFirst, 16},
      {Opcode::kXrcSendMiddle, 16},
      {Opcode::kXrcSendLast, 16},
      {Opcode::kXrcSendLastImm, 20},
      {Opcode::kXrcSendOnly, 16},
      {Opcode::kXrcSendOnlyImm, 20},
      {Opcode::kXrcWriteFirst, 32},
      {Opcode::kXrcWriteMiddle, 16},
      {Opcode::kXrcWriteLast, 16},
      {Opcode::kXrcWriteLastImm, 20},
      {Opcode::kXrcWriteOnly, 32},
      {Opcode::kXrcWriteOnlyImm, 36},
      {Opcode::kXrcReadRequest, 32},
      {Opcode::kXrcReadResponseFirst, 16},
      {Opcode::kXrcReadResponseMiddle, 12},
      {Opcode::kXrcReadResponseLast, 16},
      {Opcode::kXrcReadResponseOnly, 16},
      {Opcode::kXrcAck, 16},
      {Opcode::kXrcAtomicAck, 24},
      {Opcode::kXrcCompareSwap, 44},
      {Opcode::kXrcFetchAdd, 44},
      {Opcode::kXrcSendLastInvalidate, 20},
      {Opcode::kXrcSendOnlyInvalidate, 20},
      {Opcode::kXrcFlush, 36},
      {Opcode::kXrcAtomicWrite, 32},
  };
  return expected;
}

TEST(Opcode, HasTheHeaderLengthOfTheSpecification) {
  for (int raw = 0; raw < 256; ++raw) {
    const auto opcode = static_cast<Opcode>(raw);
    const auto entry = expected_header_bytes().find(opcode);
    ASSERT_EQ(info(opcode).valid, entry != expected_header_bytes().end()) << raw;
    if (entry == expected_header_bytes().end()) continue;
    EXPECT_EQ(info(opcode).header_bytes, entry->second) << raw;
    EXPECT_LE(info(opcode).header_bytes, kMaxHeaderBytes) << raw;
  }
}

TEST(Opcode, KnowsPositionsInAMessage) {
  // Expect: First opens, Middle does neither, Last closes, Only does both; responses are no
  // requests.
  const OpcodeInfo& first = info(Opcode::kUcWriteFirst);
  EXPECT_TRUE(first.first && !first.last && first.request && first.has_reth);
  const OpcodeInfo& middle = info(Opcode::kRcReadResponseMiddle);
  EXPECT_TRUE(!middle.first && !middle.last && !middle.request && !middle.has_aeth);
  const OpcodeInfo& last = info(Opcode::kXrcSendLastInvalidate);
  EXPECT_TRUE(!last.first && last.last && last.request && last.has_invalidate && last.has_xrceth);
  const OpcodeInfo& only = info(Opcode::kUdSendOnlyImm);
  EXPECT_TRUE(only.first && only.last && only.has_deth && only.has_immediate);
  const OpcodeInfo& response_last = info(Opcode::kRcReadResponseLast);
  EXPECT_TRUE(!response_last.first && response_last.last && response_last.has_aeth);
  const OpcodeInfo& response_only = info(Opcode::kRcReadResponseOnly);
  EXPECT_TRUE(response_only.first && response_only.last);
}

TEST(Opcode, SaysWhatMayCarryAPayload) {
  for (const Opcode without : {Opcode::kRcReadRequest, Opcode::kRcAck, Opcode::kRcAtomicAck,
                               Opcode::kRcCompareSwap, Opcode::kRcFetchAdd, Opcode::kRcFlush}) {
    EXPECT_FALSE(info(without).has_payload) << static_cast<int>(without);
  }
  for (const Opcode with : {Opcode::kRcSendMiddle, Opcode::kUcWriteOnlyImm, Opcode::kUdSendOnly,
                            Opcode::kRcReadResponseOnly, Opcode::kRcAtomicWrite, Opcode::kCnp}) {
    EXPECT_TRUE(info(with).has_payload) << static_cast<int>(with);
  }
}

TEST(Opcode, HasANameWhenValid) {
  for (int raw = 0; raw < 256; ++raw) {
    const auto opcode = static_cast<Opcode>(raw);
    const bool named = std::strcmp(operation_name(opcode), "unknown") != 0 &&
                       std::strcmp(service_name(opcode), "unknown") != 0;
    EXPECT_EQ(named, info(opcode).valid) << raw;
  }
  EXPECT_STREQ(service_name(Opcode::kXrcWriteOnlyImm), "XRC");
  EXPECT_STREQ(operation_name(Opcode::kXrcWriteOnlyImm), "WRITE Only with immediate");
}

}  // namespace
}  // namespace isthmus::wire
