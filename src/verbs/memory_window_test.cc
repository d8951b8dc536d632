// Goal: a type 2 memory window can be bound, invalidated and bound again, and only the key of its
// present binding opens it.
// Method: a server binds a window over a few bytes of its memory; a client in the same process
// writes through it, over each of the channels.
#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <optional>
#include <string>

#include "control/window_view.h"
#include "verbs/daemon_for_tests.h"
#include "verbs/endpoint_for_tests.h"

namespace isthmus::verbs {
namespace {

constexpr std::size_t kOffset = 512;  // Of the window in the server's memory.
constexpr std::size_t kBytes = 64;

class MemoryWindowTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    setenv("ISTHMUS_CHANNEL", GetParam(), 1);
    server_.emplace();
    client_.emplace();
    region_ = ibv_reg_mr(server_->pd, server_->memory.data(), server_->memory.size(),
                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
    window_ = ibv_alloc_mw(server_->pd, IBV_MW_TYPE_2);
    ASSERT_NE(region_, nullptr);
    ASSERT_NE(window_, nullptr);
    ASSERT_NO_FATAL_FAILURE(connect(*server_, *client_));
  }
  void TearDown() override {
    EXPECT_EQ(ibv_dealloc_mw(window_), 0);
    EXPECT_EQ(ibv_dereg_mr(region_), 0);
    client_.reset();
    server_.reset();
    unsetenv("ISTHMUS_CHANNEL");
  }

  static ibv_wc_status post(EndpointForTests& from, ibv_send_wr wr) {
    ibv_send_wr* bad = nullptr;
    wr.send_flags |= IBV_SEND_SIGNALED;
    EXPECT_EQ(ibv_post_send(from.qp, &wr, &bad), 0);
    return from.next_completion().status;
  }

  ibv_wc_status bind(std::uint32_t key) {
    ibv_send_wr wr{};
    wr.opcode = IBV_WR_BIND_MW;
    wr.bind_mw.mw = window_;
    wr.bind_mw.rkey = key;
    wr.bind_mw.bind_info = {.mr = region_,
                            .addr = address(),
                            .length = kBytes,
                            .mw_access_flags = IBV_ACCESS_REMOTE_WRITE};
    return post(*server_, wr);
  }

  ibv_wc_status invalidate(std::uint32_t key) {
    ibv_send_wr wr{};
    wr.opcode = IBV_WR_LOCAL_INV;
    wr.invalidate_rkey = key;
    return post(*server_, wr);
  }

  // By the client, with a message.
  void invalidate_from_afar(std::uint32_t key) {
    ASSERT_EQ(server_->post_receive(7), 0);
    ibv_sge sge{.addr = reinterpret_cast<std::uintptr_t>(client_->memory.data()),
                .length = 1,
                .lkey = client_->mr->lkey};
    ibv_send_wr wr{};
    wr.opcode = IBV_WR_SEND_WITH_INV;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.invalidate_rkey = key;
    EXPECT_EQ(post(*client_, wr), IBV_WC_SUCCESS);
    const ibv_wc wc = server_->next_completion();
    EXPECT_EQ(wc.wr_id, 7u);
    EXPECT_TRUE(wc.wc_flags & IBV_WC_WITH_INV);
    EXPECT_EQ(wc.invalidated_rkey, key);
  }

  // By the client, through the window.
  ibv_wc_status write(std::uint32_t key, const char* text) {
    std::strcpy(client_->memory.data(), text);
    ibv_sge sge{.addr = reinterpret_cast<std::uintptr_t>(client_->memory.data()),
                .length = static_cast<std::uint32_t>(std::strlen(text) + 1),
                .lkey = client_->mr->lkey};
    ibv_send_wr wr{};
    wr.opcode = IBV_WR_RDMA_WRITE;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.wr.rdma = {.remote_addr = address(), .rkey = key};
    return post(*client_, wr);
  }

  std::uint64_t address() const {
    return reinterpret_cast<std::uintptr_t>(server_->memory.data() + kOffset);
  }
  // The poll orders this after the WRITE of the server's helper thread: both take the context's
  // lock. The client's completion says the same, but over a socket, where TSan does not see it.
  std::string content() const {
    ibv_wc none;
    EXPECT_EQ(ibv_poll_cq(server_->cq, 1, &none), 0);
    return server_->memory.data() + kOffset;
  }

  DaemonForTests daemon_;
  std::optional<EndpointForTests> server_;
  std::optional<EndpointForTests> client_;
  ibv_mr* region_ = nullptr;
  ibv_mw* window_ = nullptr;
};

TEST_P(MemoryWindowTest, IsBoundAgainAfterALocalInvalidation) {
  std::uint32_t key = window_->rkey;
  for (const char* text : {"first", "second", "third"}) {
    key = ibv_inc_rkey(key);
    ASSERT_EQ(bind(key), IBV_WC_SUCCESS) << text;
    EXPECT_EQ(write(key, text), IBV_WC_SUCCESS);
    EXPECT_EQ(content(), text);
    ASSERT_EQ(invalidate(key), IBV_WC_SUCCESS);
  }
  // Nothing is bound. Expect: refused, and the memory is as it was.
  EXPECT_EQ(write(key, "fourth"), IBV_WC_REM_ACCESS_ERR);
  EXPECT_EQ(content(), "third");
}

TEST_P(MemoryWindowTest, IsBoundAgainAfterThePeerInvalidatedIt) {
  const std::uint32_t first = ibv_inc_rkey(window_->rkey);
  const std::uint32_t second = ibv_inc_rkey(first);
  ASSERT_EQ(bind(first), IBV_WC_SUCCESS);
  EXPECT_EQ(write(first, "first"), IBV_WC_SUCCESS);
  ASSERT_NO_FATAL_FAILURE(invalidate_from_afar(first));
  ASSERT_EQ(bind(second), IBV_WC_SUCCESS);
  EXPECT_EQ(write(second, "second"), IBV_WC_SUCCESS);
  EXPECT_EQ(content(), "second");

  // The key of the earlier binding. Expect: refused.
  EXPECT_EQ(write(first, "third"), IBV_WC_REM_ACCESS_ERR);
  EXPECT_EQ(content(), "second");
}

TEST_P(MemoryWindowTest, FollowsAProgramThatKeepsTheKeyInTheObject) {
  for (int i = 0; i < 2; ++i) {
    const std::uint32_t key = ibv_inc_rkey(window_->rkey);
    ASSERT_EQ(bind(key), IBV_WC_SUCCESS);
    window_->rkey = key;
    EXPECT_EQ(write(key, "here"), IBV_WC_SUCCESS);
    ASSERT_EQ(invalidate(key), IBV_WC_SUCCESS);
  }
}

TEST_P(MemoryWindowTest, IsNotBoundWhileItIsBound) {
  const std::uint32_t key = ibv_inc_rkey(window_->rkey);
  ASSERT_EQ(bind(key), IBV_WC_SUCCESS);
  EXPECT_EQ(bind(ibv_inc_rkey(key)), IBV_WC_MW_BIND_ERR);
}

TEST_P(MemoryWindowTest, TakesNoKeyOfAnother) {
  // The same index with another tag than its own eight bits. Expect: refused.
  EXPECT_EQ(bind(window_->rkey ^ 0x100), IBV_WC_MW_BIND_ERR);
}

TEST_P(MemoryWindowTest, ItsRegionStaysWhileItIsBound) {
  const std::uint32_t key = ibv_inc_rkey(window_->rkey);
  ASSERT_EQ(bind(key), IBV_WC_SUCCESS);
  EXPECT_EQ(ibv_dereg_mr(region_), EBUSY);
  ASSERT_EQ(invalidate(key), IBV_WC_SUCCESS);
}

TEST_P(MemoryWindowTest, IsListedBesideTheRegions) {
  const std::uint32_t key = ibv_inc_rkey(window_->rkey);
  ASSERT_EQ(bind(key), IBV_WC_SUCCESS);
  std::map<std::uint32_t, control::MemoryRegionView> listed;
  daemon_.run_in_daemon([&](control::FunctionService& functions) {
    functions.for_each([&](const control::Function& function) {
      for (const auto& view : control::memory_regions_of(function.window())) {
        listed[view.key] = view;
      }
    });
  });
  EXPECT_EQ(listed.size(), 4u);  // Also the region of either endpoint.
  ASSERT_TRUE(listed.contains(key));
  EXPECT_TRUE(listed[key].is_window);
  EXPECT_EQ(listed[key].length, kBytes);
  EXPECT_FALSE(listed[region_->rkey].is_window);
}

INSTANTIATE_TEST_SUITE_P(Channels, MemoryWindowTest, ::testing::Values("auto", "roce"));

}  // namespace
}  // namespace isthmus::verbs
