// Goal: whatever the network does, every work request completes once, in order, and the memory on
// both sides is what the requests say.
// Method: two engines send each other a random mixture of all operations over a network that loses,
// repeats, reorders, delays and damages; then every effect is checked against its plan. The seed is
// printed; ISTHMUS_SIM_SEED runs one alone, ISTHMUS_SIM_RUNS sets how many.
#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <deque>

#include "sim/host.h"

namespace isthmus::sim {
namespace {

constexpr std::size_t kSlots = 64;            // Requests under way, at most.
constexpr std::size_t kSlotBytes = 12 * 1024;
// Memory of an end: sources, receive buffers, what the peer writes, what the peer reads, results of
// our reads, one counter.
constexpr std::size_t kSource = 0;
constexpr std::size_t kReceive = kSource + kSlots * kSlotBytes;
constexpr std::size_t kWritten = kReceive + kSlots * kSlotBytes;
constexpr std::size_t kReadable = kWritten + kSlots * kSlotBytes;
constexpr std::size_t kResult = kReadable + kSlots * kSlotBytes;
constexpr std::size_t kCounter = kResult + kSlots * kSlotBytes;
constexpr std::size_t kMemory = kCounter + 64;

void fill(std::byte* bytes, std::size_t length, std::uint64_t salt) {
  for (std::size_t i = 0; i < length; ++i) {
    bytes[i] = static_cast<std::byte>((salt * 0x9e37'79b9 + i * 131) >> 7);
  }
}

bool holds(const std::byte* bytes, std::size_t length, std::uint64_t salt) {
  std::vector<std::byte> expected(length);
  fill(expected.data(), length, salt);
  return length == 0 || std::memcmp(bytes, expected.data(), length) == 0;
}

struct Plan {
  ibv_wr_opcode opcode;
  std::size_t length;
  std::uint64_t salt;
};

// One direction: `from` works on `to`.
class Direction {
 public:
  Direction(End& from, End& to, std::mt19937_64& random, std::uint64_t total)
      : from_(from), to_(to), random_(random), total_(total) {
    fill(&to_.memory[kReadable], kSlots * kSlotBytes, 99);
  }

  bool done() const { return completed_ == total_ && received_ == expected_.size(); }
  std::uint64_t atomics() const { return atomics_; }

  void step() {
    while (posted_ < total_ && posted_ - completed_ < kSlots / 2 && random_() % 8 != 0) post();
    // Receives are posted late, so that the sender meets an empty queue.
    while (receives_ < received_ + kSlots / 2 && random_() % 4 != 0) {
      ASSERT_EQ(to_.post_recv(receives_, kReceive + receives_ % kSlots * kSlotBytes, kSlotBytes),
                0);
      ++receives_;
    }
    for (const ibv_wc& wc : from_.poll(*from_.send_cq)) check_sent(wc);
    for (const ibv_wc& wc : to_.poll(*to_.recv_cq)) check_received(wc);
  }

 private:
  void post() {
    constexpr std::array kOpcodes{IBV_WR_SEND,           IBV_WR_SEND_WITH_IMM,
                                  IBV_WR_RDMA_WRITE,     IBV_WR_RDMA_WRITE_WITH_IMM,
                                  IBV_WR_RDMA_READ,      IBV_WR_ATOMIC_FETCH_AND_ADD,
                                  IBV_WR_RDMA_READ,      IBV_WR_RDMA_WRITE};
    Plan plan{kOpcodes[random_() % kOpcodes.size()],
              random_() % 3 == 0 ? random_() % 64 : random_() % kSlotBytes, random_()};
    const std::size_t slot = posted_ % kSlots * kSlotBytes;
    ibv_send_wr wr{};
    wr.wr_id = posted_;
    wr.opcode = plan.opcode;
    wr.imm_data = static_cast<std::uint32_t>(posted_);
    if (random_() % 16 == 0) wr.send_flags |= IBV_SEND_FENCE;
    std::vector<ibv_sge> sges;
    if (plan.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
      plan.length = 8;
      wr.wr.atomic = {to_.address_of(kCounter), 1, 0, to_.mr->rkey()};
      sges = {from_.sge(kResult + slot, 8)};
      ++atomics_;
    } else if (plan.opcode == IBV_WR_RDMA_READ) {
      wr.wr.rdma = {to_.address_of(kReadable), to_.mr->rkey()};
      std::memset(&from_.memory[kResult + slot], 0, kSlotBytes);
      sges = split(kResult + slot, plan.length);
    } else {
      fill(&from_.memory[kSource + slot], plan.length, plan.salt);
      wr.wr.rdma = {to_.address_of(kWritten + slot), to_.mr->rkey()};
      sges = split(kSource + slot, plan.length);
      if (plan.length <= 256 && random_() % 2) wr.send_flags |= IBV_SEND_INLINE;
      const bool write = plan.opcode == IBV_WR_RDMA_WRITE;
      if (!write) expected_.push_back({plan, posted_});
    }
    ASSERT_EQ(from_.post_send(wr, sges), 0);
    if (wr.send_flags & IBV_SEND_INLINE) {
      std::memset(&from_.memory[kSource + slot], 0xee, plan.length);  // It was copied.
    }
    plans_.push_back(plan);
    ++posted_;
  }

  std::vector<ibv_sge> split(std::size_t offset, std::size_t length) {
    if (random_() % 2) return {from_.sge(offset, length)};
    const std::size_t first = length ? random_() % length : 0;
    return {from_.sge(offset, first), from_.sge(offset + first, length - first)};
  }

  void check_sent(const ibv_wc& wc) {
    ASSERT_EQ(wc.status, IBV_WC_SUCCESS) << "request " << wc.wr_id;
    ASSERT_EQ(wc.wr_id, completed_) << "completions are in the order of posting";
    const Plan& plan = plans_[completed_];
    const std::size_t slot = completed_ % kSlots * kSlotBytes;
    if (plan.opcode == IBV_WR_RDMA_READ) {
      ASSERT_TRUE(holds(&from_.memory[kResult + slot], plan.length, 99)) << completed_;
    } else if (plan.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
      std::uint64_t original;
      std::memcpy(&original, &from_.memory[kResult + slot], 8);
      ASSERT_EQ(original, atomics_done_++) << "each addition happened once, in order";
    } else if (plan.opcode == IBV_WR_RDMA_WRITE) {
      ASSERT_TRUE(holds(&to_.memory[kWritten + slot], plan.length, plan.salt)) << completed_;
    }
    ++completed_;
  }

  void check_received(const ibv_wc& wc) {
    ASSERT_EQ(wc.status, IBV_WC_SUCCESS);
    ASSERT_EQ(wc.wr_id, received_);
    ASSERT_LT(received_, expected_.size()) << "a message nobody sent";
    const auto& [plan, number] = expected_[received_];
    ASSERT_EQ(wc.byte_len, plan.length);
    const bool is_write = plan.opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
    ASSERT_EQ(wc.opcode, is_write ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV);
    if (plan.opcode != IBV_WR_SEND) {
      ASSERT_EQ(wc.imm_data, static_cast<std::uint32_t>(number));
    }
    const std::size_t at = is_write ? kWritten + number % kSlots * kSlotBytes
                                    : kReceive + received_ % kSlots * kSlotBytes;
    ASSERT_TRUE(holds(&to_.memory[at], plan.length, plan.salt)) << "message " << number;
    ++received_;
  }

  End& from_;
  End& to_;
  std::mt19937_64& random_;
  std::uint64_t total_;
  std::vector<Plan> plans_;
  std::vector<std::pair<Plan, std::uint64_t>> expected_;
  std::uint64_t posted_ = 0, completed_ = 0, receives_ = 0, received_ = 0;
  std::uint64_t atomics_ = 0, atomics_done_ = 0;
};

struct Run {
  Faults faults;
  bool neighbours = false;
  bool switch_channels = false;
};

void exchange(std::uint64_t seed, const Run& run) {
  SCOPED_TRACE("ISTHMUS_SIM_SEED=" + std::to_string(seed));
  Network network(seed, run.faults);
  std::mt19937_64& random = network.random();
  // IPv6, where the ICRC has all its 32 bits: see wire/icrc.h.
  Host host_a(network, *wire::IpAddress::parse("fd00::1"), 1);
  Host host_b(network, *wire::IpAddress::parse("fd00::2"), 2);
  End a(host_a, {.memory_bytes = kMemory});
  End b(host_b, {.memory_bytes = kMemory});
  connect(a, b,
          {.mtu = static_cast<ibv_mtu>(IBV_MTU_256 + random() % 5),
           .timeout = 10,
           .first_psn = static_cast<std::uint32_t>(random()),
           .neighbours = run.neighbours});
  Direction ab(a, b, random, 400);
  Direction ba(b, a, random, 400);
  const bool finished = run_until(
      network, {&host_a, &host_b},
      [&] {
        ab.step();
        ba.step();
        if (run.switch_channels && random() % 64 == 0) {
          End& end = random() % 2 ? a : b;
          const auto kind = random() % 2 ? rdma::ChannelKind::kRoce : rdma::ChannelKind::kMemory;
          EXPECT_TRUE(end.host.engine->switch_channel(end.qp->qpn(), kind).has_value());
        }
        return ::testing::Test::HasFatalFailure() || (ab.done() && ba.done());
      },
      3'000'000'000'000);
  EXPECT_TRUE(finished) << "it hangs";
  EXPECT_TRUE(host_a.async_events.empty() || host_a.async_events[0] == IBV_EVENT_COMM_EST);
}

void exchange_many(const Run& run) {
  if (const char* seed = std::getenv("ISTHMUS_SIM_SEED")) {
    exchange(std::strtoull(seed, nullptr, 0), run);
    return;
  }
  const char* runs = std::getenv("ISTHMUS_SIM_RUNS");
  const std::uint64_t count = runs ? std::strtoull(runs, nullptr, 0) : 10;
  for (std::uint64_t seed = 1; seed <= count && !::testing::Test::HasFailure(); ++seed) {
    exchange(seed, run);
  }
}

TEST(RdmaSim, PerfectNetwork) { exchange_many({}); }
TEST(RdmaSim, TenPercentLoss) { exchange_many({.faults = {.lose = 10}}); }
TEST(RdmaSim, Repetition) { exchange_many({.faults = {.repeat = 20}}); }
TEST(RdmaSim, Reordering) { exchange_many({.faults = {.delay = 10}}); }
TEST(RdmaSim, Damage) { exchange_many({.faults = {.damage = 5}}); }
TEST(RdmaSim, Everything) {
  exchange_many({.faults = {.lose = 5, .repeat = 5, .damage = 3, .delay = 10}});
}
// Many requests are sent again just before their answer comes.
TEST(RdmaSim, RoundTripsAsLongAsTheTimeout) {
  exchange_many({.faults = {.delay = 20,
                            .delay_ns = rdma::kMinTimeoutNs,
                            .latency_ns = rdma::kMinTimeoutNs / 2 - 400'000}});
}
TEST(RdmaSim, MemoryChannel) { exchange_many({.neighbours = true}); }
TEST(RdmaSim, ChannelSwitchesUnderLoad) {
  exchange_many({.faults = {.lose = 2, .delay = 5}, .neighbours = true, .switch_channels = true});
}

}  // namespace
}  // namespace isthmus::sim
