// Goal: every packet that record() took comes out once, in order, unchanged; a full ring counts
// what it loses; nothing a producer can write makes the reader leave its memory or run for ever.
// Method: random sizes across many turns of a small ring, then damaged headers.
#include "rdma/capture_ring.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace isthmus::rdma {
namespace {

constexpr std::size_t kDataBytes = 32 * 1024;

class CaptureRingTest : public ::testing::Test {
 protected:
  CaptureRingTest() {
    CaptureRing::format(memory());
    ring_ = std::move(CaptureRing::open(memory(), nullptr)).value();
    reader_ = std::move(CaptureReader::open(memory(), nullptr)).value();
  }
  std::span<std::byte> memory() { return {memory_->bytes.data(), memory_->bytes.size()}; }
  std::byte* data() { return memory().data() + sizeof(CaptureRingHeader); }
  CaptureRingHeader& header() { return *reinterpret_cast<CaptureRingHeader*>(memory().data()); }

  struct alignas(4096) Memory {
    std::array<std::byte, sizeof(CaptureRingHeader) + kDataBytes> bytes{};
  };
  std::unique_ptr<Memory> memory_ = std::make_unique<Memory>();
  std::unique_ptr<CaptureRing> ring_;
  std::unique_ptr<CaptureReader> reader_;
};

std::vector<std::byte> pattern(std::size_t bytes, unsigned seed) {
  std::vector<std::byte> made(bytes);
  for (std::size_t i = 0; i < bytes; ++i) made[i] = static_cast<std::byte>(seed * 7 + i);
  return made;
}

TEST_F(CaptureRingTest, KeepsOrderAndBytesOverManyTurns) {
  std::mt19937 random{7};
  std::uint64_t sent = 0;
  std::uint64_t received = 0;
  while (received < 5000) {
    for (unsigned burst = random() % 5; burst != 0; --burst, ++sent) {
      const auto packet = pattern(1 + sent * 37 % 4144, static_cast<unsigned>(sent));
      const auto cut = packet.size() / 3;
      const std::span all{packet};
      if (!ring_->record({.timestamp_ns = sent, .local_qpn = 17},
                         {all.first(cut), all.subspan(cut)})) {
        break;  // Full: the next turn empties it.
      }
    }
    for (;;) {
      auto packet = reader_->next();
      ASSERT_TRUE(packet) << packet.error().message;
      if (!*packet) break;
      EXPECT_EQ((*packet)->meta.timestamp_ns, received);
      EXPECT_EQ((*packet)->meta.local_qpn, 17u);
      EXPECT_EQ((*packet)->bytes,
                pattern(1 + received * 37 % 4144, static_cast<unsigned>(received)));
      ++received;
    }
    EXPECT_EQ(sent, received);
  }
}

TEST_F(CaptureRingTest, CountsWhatAFullRingLoses) {
  const auto packet = pattern(1000, 1);
  unsigned taken = 0;
  while (ring_->record({}, packet)) ++taken;
  EXPECT_FALSE(ring_->record({}, packet));
  EXPECT_EQ(taken, kDataBytes / (64 + 1000));
  EXPECT_EQ(reader_->dropped(), 2u);
  // One out, one in.
  ASSERT_TRUE(reader_->next().value());
  EXPECT_TRUE(ring_->record({}, packet) || ring_->record({}, pattern(8, 1)));
}

TEST_F(CaptureRingTest, CutsALongPacketAndSplitsARun) {
  ring_->record({}, pattern(9000, 3));
  auto cut = reader_->next().value().value();
  EXPECT_EQ(cut.bytes.size(), kCaptureSnapBytes);
  EXPECT_EQ(cut.original_bytes, 9000u);

  ring_->record_run({.ip_id = 0}, pattern(250, 3), 100);
  for (const std::size_t expected : {100, 100, 50}) {
    EXPECT_EQ(reader_->next().value().value().bytes.size(), expected);
  }
  EXPECT_FALSE(reader_->next().value());
}

TEST_F(CaptureRingTest, FiltersByQueuePairAndStops) {
  EXPECT_TRUE(ring_->wants(5));
  reader_->set_only_qpn(6);
  EXPECT_FALSE(ring_->wants(5));
  EXPECT_TRUE(ring_->wants(6));
  reader_->stop();
  EXPECT_FALSE(ring_->wants(6));
  EXPECT_TRUE(ring_->stopped());
}

TEST_F(CaptureRingTest, ReportsDamage) {
  // A head beyond the ring, an unaligned one. Expect: an error, no packet.
  for (const std::uint64_t head :
       {std::uint64_t{kDataBytes} + 8, std::uint64_t{3}, ~std::uint64_t{0}}) {
    header().head = head;
    EXPECT_FALSE(reader_->next());
  }
  header().head = 0;
  // A record that claims more than was written, one of size 0, and a packet larger than its record.
  for (const std::uint32_t claim : {0u, 4u, 4096u, 0xffff'fff8u}) {
    ring_->record({}, pattern(64, 1));
    std::memcpy(data() + (header().head - 128) % kDataBytes, &claim, 4);
    EXPECT_FALSE(reader_->next()) << claim;
    header().tail = header().head.load();
    reader_ = std::move(CaptureReader::open(memory(), nullptr)).value();
  }
  ring_->record({}, pattern(64, 1));
  const std::uint32_t stored = 65;
  std::memcpy(data() + (header().head - 128) % kDataBytes + 8, &stored, 4);
  EXPECT_FALSE(reader_->next());
}

TEST_F(CaptureRingTest, RandomBytesNeitherCrashNorLoop) {
  std::mt19937 random{11};
  for (int turn = 0; turn < 2000; ++turn) {
    for (std::size_t i = 0; i < 512; ++i) data()[i] = static_cast<std::byte>(random());
    // Plausible sizes now and then, so that the checks behind the first are reached.
    if (turn % 2 == 0) std::memset(data() + 1, 0, 3);
    header().head = random() % 64 * 8;
    header().tail = 0;
    auto reader = std::move(CaptureReader::open(memory(), nullptr)).value();
    for (int records = 0;; ++records) {
      ASSERT_LE(records, 64);
      auto packet = reader->next();
      if (!packet || !*packet) break;
    }
  }
}

TEST(CaptureRing, RefusesForeignMemory) {
  alignas(4096) static std::array<std::byte, kCaptureFileBytes> memory{};
  EXPECT_FALSE(CaptureRing::open(memory, nullptr));
  CaptureRing::format(memory);
  EXPECT_TRUE(CaptureRing::open(memory, nullptr));
  EXPECT_FALSE(CaptureRing::open(std::span{memory}.first(100), nullptr));
  EXPECT_FALSE(CaptureReader::open(std::span{memory}.first(memory.size() - 8), nullptr));
}

}  // namespace
}  // namespace isthmus::rdma
