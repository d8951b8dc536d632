// Goal: the errors and the corners that the random runs of rdma_sim_test do not visit.
// Method: two engines on a perfect simulated network, on both channels; one thing is wrong at a
// time.
#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "rdma/engine_state.h"
#include "sim/host.h"

namespace isthmus::sim {
namespace {

class BothChannels : public ::testing::TestWithParam<bool> {
 protected:
  void join(ConnectOptions options = {}) {
    options.neighbours = GetParam();
    connect(a, b, options);
  }
  // Completions of a's send queue, run until `count` of them are there.
  std::vector<ibv_wc> sent(std::size_t count) { return collect(a, *a.send_cq, count); }
  std::vector<ibv_wc> received(std::size_t count) { return collect(b, *b.recv_cq, count); }
  std::vector<ibv_wc> collect(End& end, rdma::CompletionQueue& cq, std::size_t count) {
    std::vector<ibv_wc> all;
    run_until(network, {&host_a, &host_b}, [&] {
      for (const ibv_wc& wc : end.poll(cq)) all.push_back(wc);
      return all.size() >= count;
    });
    EXPECT_EQ(all.size(), count);
    all.resize(count);
    return all;
  }
  int write(std::uint64_t wr_id, std::uint64_t remote, std::uint32_t rkey, std::size_t bytes) {
    ibv_send_wr wr{};
    wr.wr_id = wr_id;
    wr.opcode = IBV_WR_RDMA_WRITE;
    wr.wr.rdma = {remote, rkey};
    return a.post_send(wr, {a.sge(0, bytes)});
  }

  Network network{1, {}};
  Host host_a{network, *wire::IpAddress::parse("10.0.0.1"), 1};
  Host host_b{network, *wire::IpAddress::parse("10.0.0.2"), 2};
  End a{host_a};
  End b{host_b};
};

TEST_P(BothChannels, WrongKeyFailsThatQueuePairOnBothSides) {
  join();
  EXPECT_EQ(write(1, b.address_of(0), b.mr->rkey() ^ 1, 64), 0);
  EXPECT_EQ(write(2, b.address_of(0), b.mr->rkey(), 64), 0);
  const auto wcs = sent(2);
  EXPECT_EQ(wcs[0].status, IBV_WC_REM_ACCESS_ERR);
  EXPECT_EQ(wcs[1].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(a.qp->state(), IBV_QPS_ERR);
  EXPECT_EQ(b.qp->state(), IBV_QPS_ERR);
  EXPECT_EQ(host_b.async_events.back(), IBV_EVENT_QP_ACCESS_ERR);
}

TEST_P(BothChannels, OutOfRangeIsRefusedToTheByte) {
  join();
  const std::size_t size = b.memory.size();
  EXPECT_EQ(write(1, b.address_of(size - 64), b.mr->rkey(), 64), 0);
  EXPECT_EQ(sent(1)[0].status, IBV_WC_SUCCESS);
  EXPECT_EQ(write(2, b.address_of(size - 63), b.mr->rkey(), 64), 0);
  EXPECT_EQ(sent(1)[0].status, IBV_WC_REM_ACCESS_ERR);
}

TEST_P(BothChannels, AnotherDomainsKeyIsRefused) {
  join();
  End other(host_b);
  EXPECT_EQ(write(1, other.address_of(0), other.mr->rkey(), 64), 0);
  EXPECT_EQ(sent(1)[0].status, IBV_WC_REM_ACCESS_ERR);
}

TEST_P(BothChannels, MissingRightOfTheRegionIsRefused) {
  End reader(host_b, {.access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ});
  ConnectOptions options{.neighbours = GetParam()};
  connect(a, reader, options);
  EXPECT_EQ(write(1, reader.address_of(0), reader.mr->rkey(), 64), 0);
  EXPECT_EQ(sent(1)[0].status, IBV_WC_REM_ACCESS_ERR);
}

TEST_P(BothChannels, ReceiveBufferTooShort) {
  join();
  EXPECT_EQ(b.post_recv(7, 0, 100), 0);
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_SEND;
  EXPECT_EQ(a.post_send(wr, {a.sge(0, 101)}), 0);
  EXPECT_EQ(sent(1)[0].status, IBV_WC_REM_INV_REQ_ERR);
  EXPECT_EQ(received(1)[0].status, IBV_WC_LOC_LEN_ERR);
}

TEST_P(BothChannels, NoReceiveAndNoRetriesLeft) {
  join({.rnr_retry = 0});
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_SEND;
  EXPECT_EQ(a.post_send(wr, {a.sge(0, 8)}), 0);
  EXPECT_EQ(sent(1)[0].status, IBV_WC_RNR_RETRY_EXC_ERR);
}

TEST_P(BothChannels, LateReceiveIsFilled) {
  join();
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_SEND;
  EXPECT_EQ(a.post_send(wr, {a.sge(0, 5000)}), 0);
  run_until(network, {&host_a, &host_b}, [] { return false; }, 20'000'000);
  EXPECT_EQ(b.post_recv(7, 0, 8000), 0);
  EXPECT_EQ(received(1)[0].byte_len, 5000u);
  EXPECT_EQ(sent(1)[0].status, IBV_WC_SUCCESS);
}

TEST_P(BothChannels, AbsentPeerIsNoticedInBoundedTime) {
  join({.timeout = 10, .retry_count = 3});
  if (GetParam()) {
    host_b.window->header.closed = 1;
  } else {
    network.cut(host_b.address);
  }
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_SEND;
  const std::uint64_t before = network.now_ns();
  EXPECT_EQ(a.post_send(wr, {a.sge(0, 8)}), 0);
  EXPECT_EQ(a.post_send(wr, {a.sge(0, 8)}), 0);
  std::vector<ibv_wc> wcs;
  run_until(network, {&host_a}, [&] {
    for (const ibv_wc& wc : a.poll(*a.send_cq)) wcs.push_back(wc);
    return wcs.size() == 2;
  });
  ASSERT_EQ(wcs.size(), 2u);
  EXPECT_EQ(wcs[0].status, IBV_WC_RETRY_EXC_ERR);
  EXPECT_EQ(wcs[1].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_LT(network.now_ns() - before, 5 * rdma::kMinTimeoutNs) << "four tries";
}

TEST_P(BothChannels, TheLastAcknowledgementOfADestroyedQueuePairMayBeLost) {
  join();
  EXPECT_EQ(b.post_recv(7, 0, 100), 0);
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_SEND;
  EXPECT_EQ(a.post_send(wr, {a.sge(0, 8)}), 0);
  network.lose_next_from(host_b.address);
  run_until(network, {&host_b}, [&] { return !b.poll(*b.recv_cq).empty(); });
  b.qp.reset();
  EXPECT_EQ(network.lost(), GetParam() ? 0u : 1u);
  EXPECT_EQ(sent(1)[0].status, IBV_WC_SUCCESS);
}

TEST_P(BothChannels, LocalKeyIsChecked) {
  join();
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_RDMA_WRITE;
  wr.wr.rdma = {b.address_of(0), b.mr->rkey()};
  EXPECT_EQ(write(1, b.address_of(0), b.mr->rkey(), 64), 0);
  EXPECT_EQ(a.post_send(wr, {{a.address_of(0), 64, a.mr->lkey() + 1}}), 0);
  const auto wcs = sent(2);
  EXPECT_EQ(wcs[0].status, IBV_WC_SUCCESS);
  EXPECT_EQ(wcs[1].status, IBV_WC_LOC_PROT_ERR);
}

TEST_P(BothChannels, RevokedQueuePairFlushes) {
  join();
  EXPECT_EQ(b.post_recv(7, 0, 100), 0);
  host_b.engine->revoke(b.qp->qpn());
  EXPECT_EQ(received(1)[0].status, IBV_WC_WR_FLUSH_ERR);
  EXPECT_EQ(b.qp->state(), IBV_QPS_ERR);
}

TEST_P(BothChannels, CompareSwapReturnsTheOriginal) {
  join();
  const std::uint64_t start = 41;
  std::memcpy(&b.memory[0], &start, 8);
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_ATOMIC_CMP_AND_SWP;
  wr.wr.atomic = {b.address_of(0), 41, 42, b.mr->rkey()};
  EXPECT_EQ(a.post_send(wr, {a.sge(0, 8)}), 0);
  EXPECT_EQ(a.post_send(wr, {a.sge(8, 8)}), 0);
  for (const ibv_wc& wc : sent(2)) EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  std::uint64_t results[2], now;
  std::memcpy(results, &a.memory[0], 16);
  std::memcpy(&now, &b.memory[0], 8);
  EXPECT_EQ(results[0], 41u);
  EXPECT_EQ(results[1], 42u) << "the second comparison fails";
  EXPECT_EQ(now, 42u);
}

TEST_P(BothChannels, AtomicWriteStoresEightBytes) {
  join();
  const std::uint64_t value = 0x1122'3344'5566'7788;
  ibv_send_wr wr{};
  wr.opcode = IBV_WR_ATOMIC_WRITE;
  wr.wr.rdma = {b.address_of(16), b.mr->rkey()};
  EXPECT_EQ(a.post_send(wr, {{reinterpret_cast<std::uint64_t>(&value), 8, 0}}), 0);
  const ibv_wc wc = sent(1)[0];
  EXPECT_EQ(wc.status, IBV_WC_SUCCESS);
  EXPECT_EQ(wc.opcode, IBV_WC_ATOMIC_WRITE);
  EXPECT_EQ(std::memcmp(&b.memory[16], &value, 8), 0);

  // Not aligned. Expect: refused.
  wr.wr.rdma.remote_addr = b.address_of(20);
  EXPECT_EQ(a.post_send(wr, {{reinterpret_cast<std::uint64_t>(&value), 8, 0}}), 0);
  EXPECT_EQ(sent(1)[0].status, IBV_WC_REM_INV_REQ_ERR);
}

TEST(QueuePairNumbers, TheMulticastNumberIsNobodys) {
  Network network{1, {}};
  Host host{network, *wire::IpAddress::parse("10.0.0.1"), rdma::kFunctionCount - 1};
  for (int i = 0; i < 8; ++i) {  // Every generation twice.
    host.engine->state().next_index = rdma::kMaxQueuePairs - 1;
    const End end{host};
    EXPECT_EQ(rdma::index_of(end.qp->qpn()), rdma::kMaxQueuePairs - 1);
    EXPECT_NE(end.qp->qpn(), 0xff'ffffu);
  }
}

TEST(QueuePairNumbers, TheNextOwnerOfAFunctionBeginsElsewhere) {
  Network network{1, {}};
  std::set<std::uint32_t> indexes;
  std::set<std::uint32_t> generations;
  for (int i = 0; i < 16; ++i) {
    Host host{network, *wire::IpAddress::parse("10.0.0.1"), 1};
    const End end{host};
    indexes.insert(rdma::index_of(end.qp->qpn()));
    generations.insert(end.qp->qpn() >> rdma::kQpIndexBits & 3);
  }
  EXPECT_GT(indexes.size(), 8u);
  EXPECT_EQ(generations.size(), 4u);
}

INSTANTIATE_TEST_SUITE_P(Channels, BothChannels, ::testing::Bool(),
                         [](const auto& test) { return test.param ? "Memory" : "Roce"; });

}  // namespace
}  // namespace isthmus::sim
