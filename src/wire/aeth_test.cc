// Goal: syndromes and RNR timers, both directions.
// Method: the values of the specification's tables, then all codes and the edges between them.
#include "wire/aeth.h"

#include <gtest/gtest.h>

namespace isthmus::wire {
namespace {

TEST(Aeth, BuildsTheSyndromesOfTheSpecification) {
  EXPECT_EQ(ack_syndrome(), 0x1f);
  EXPECT_EQ(ack_syndrome(3), 0x03);
  EXPECT_EQ(rnr_syndrome(14), 0x2e);
  EXPECT_EQ(nak_syndrome(NakCode::kPsnSequence), 0x60);
  EXPECT_EQ(nak_syndrome(NakCode::kInvalidRequest), 0x61);
  EXPECT_EQ(nak_syndrome(NakCode::kRemoteAccess), 0x62);
  EXPECT_EQ(nak_syndrome(NakCode::kRemoteOperational), 0x63);
}

TEST(Aeth, TakesThemApart) {
  EXPECT_EQ(aeth_kind(0x1f), AethKind::kAck);
  EXPECT_EQ(aeth_kind(0x2e), AethKind::kRnrNak);
  EXPECT_EQ(aeth_value(0x2e), 14);
  EXPECT_EQ(aeth_kind(0x40), AethKind::kReserved);
  EXPECT_EQ(aeth_kind(0x62), AethKind::kNak);
  EXPECT_EQ(static_cast<NakCode>(aeth_value(0x62)), NakCode::kRemoteAccess);
  EXPECT_EQ(aeth_kind(0x80), AethKind::kAck) << "bit 7 is reserved and does not count";
}

TEST(Aeth, KnowsTheRnrTimers) {
  EXPECT_EQ(rnr_timer_ns(0), 655'360'000u);
  EXPECT_EQ(rnr_timer_ns(1), 10'000u);
  EXPECT_EQ(rnr_timer_ns(12), 640'000u);
  EXPECT_EQ(rnr_timer_ns(22), 20'480'000u);
  EXPECT_EQ(rnr_timer_ns(31), 491'520'000u);
}

TEST(Aeth, FindsTheShortestTimerThatIsLongEnough) {
  EXPECT_EQ(rnr_timer_code(0), 1);
  for (std::uint8_t code = 1; code < 32; ++code) {
    EXPECT_EQ(rnr_timer_code(rnr_timer_ns(code)), code);
    const std::uint8_t longer = code == 31 ? 0 : code + 1;
    EXPECT_EQ(rnr_timer_code(rnr_timer_ns(code) + 1), longer);
  }
  EXPECT_EQ(rnr_timer_code(655'360'000), 0);
  EXPECT_EQ(rnr_timer_code(10'000'000'000), 0) << "the longest there is";
}

}  // namespace
}  // namespace isthmus::wire
