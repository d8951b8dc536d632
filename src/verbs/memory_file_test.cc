// Goal: memory of a file, registered by ibv_reg_dmabuf_mr, is written and read from afar over each
// channel; on the same host without the kernel where the file cannot shrink.
// Method: a client in the same process writes to and reads from the file's registration; the file's
// own mapping is compared.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <infiniband/verbs.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <optional>
#include <string>

#include "os/shared_memory.h"
#include "verbs/daemon_for_tests.h"
#include "verbs/endpoint_for_tests.h"

namespace isthmus::verbs {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kFileBytes = 8 * kPage;
constexpr std::uint64_t kIova = 0x7000'0000'0000;
constexpr int kAccess = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;

int mappings_of(const std::string& name) {
  std::ifstream maps{"/proc/self/maps"};
  int count = 0;
  for (std::string line; std::getline(maps, line);) {
    if (line.find("/memfd:" + name) != std::string::npos) ++count;
  }
  return count;
}

class MemoryFileTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    setenv("ISTHMUS_CHANNEL", GetParam(), 1);
    server_.emplace();
    client_.emplace();
    ASSERT_NO_FATAL_FAILURE(connect(*server_, *client_));
  }
  void TearDown() override {
    client_.reset();
    server_.reset();
    unsetenv("ISTHMUS_CHANNEL");
  }

  ibv_mr* add(const os::Fd& file, std::uint64_t offset, std::size_t length,
              std::uint64_t iova = kIova) {
    return ibv_reg_dmabuf_mr(server_->pd, offset, length, iova, file.get(), kAccess);
  }

  ibv_wc_status move(ibv_wr_opcode opcode, std::uint64_t address, std::uint32_t key,
                     std::uint32_t bytes) {
    ibv_sge sge{.addr = reinterpret_cast<std::uintptr_t>(client_->memory.data()),
                .length = bytes,
                .lkey = client_->mr->lkey};
    ibv_send_wr wr{};
    wr.opcode = opcode;
    wr.send_flags = IBV_SEND_SIGNALED;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.wr.rdma = {.remote_addr = address, .rkey = key};
    ibv_send_wr* bad = nullptr;
    EXPECT_EQ(ibv_post_send(client_->qp, &wr, &bad), 0);
    return client_->next_completion().status;
  }

  // Whether the owner's progress has run: its memory is then what the completion said.
  void look() {
    ibv_wc none;
    EXPECT_EQ(ibv_poll_cq(server_->cq, 1, &none), 0);
  }

  DaemonForTests daemon_;
  std::optional<EndpointForTests> server_;
  std::optional<EndpointForTests> client_;
};

TEST_P(MemoryFileTest, IsWrittenAndRead) {
  const os::Fd file = *os::create_shared_memory("isthmus-test-file", kFileBytes);
  const auto mapping = *os::Mapping::create(file, kFileBytes);
  ibv_mr* mr = add(file, 2 * kPage + 16, 3 * kPage, kIova + 16);
  ASSERT_NE(mr, nullptr);
  std::strcpy(client_->memory.data(), "from afar");
  EXPECT_EQ(move(IBV_WR_RDMA_WRITE, kIova + 16 + 100, mr->rkey, 10), IBV_WC_SUCCESS);
  look();
  EXPECT_STREQ(reinterpret_cast<char*>(mapping->data() + 2 * kPage + 116), "from afar");
  // What the file has is read, through a mapping that the client has now.
  std::strcpy(reinterpret_cast<char*>(mapping->data() + 4 * kPage), "in the file");
  std::memset(client_->memory.data(), 0, 64);
  EXPECT_EQ(move(IBV_WR_RDMA_READ, kIova + 2 * kPage, mr->rkey, 12), IBV_WC_SUCCESS);
  EXPECT_STREQ(client_->memory.data(), "in the file");
  const bool memory = std::string{GetParam()} == "auto";
  EXPECT_EQ(mappings_of("isthmus-test-file"), memory ? 3 : 2);  // Ours, the region's, the client's.

  // One byte too far, and a key that is gone. Expect: refused; the file is as it was.
  EXPECT_EQ(move(IBV_WR_RDMA_WRITE, kIova + 16 + 3 * kPage - 9, mr->rkey, 10),
            IBV_WC_REM_ACCESS_ERR);
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
  EXPECT_EQ(mapping->data()[5 * kPage + 8], std::byte{0});
}

TEST_P(MemoryFileTest, AnotherFileUnderTheSameNumberIsAnother) {
  for (int round = 0; round < 3; ++round) {
    const os::Fd file = *os::create_shared_memory("isthmus-test-next", kFileBytes);
    const auto mapping = *os::Mapping::create(file, kFileBytes);
    ibv_mr* mr = add(file, 0, kFileBytes);
    ASSERT_NE(mr, nullptr);
    const std::string text = "round " + std::to_string(round);
    std::strcpy(client_->memory.data(), text.c_str());
    EXPECT_EQ(move(IBV_WR_RDMA_WRITE, kIova, mr->rkey, 8), IBV_WC_SUCCESS);
    look();
    EXPECT_EQ(reinterpret_cast<char*>(mapping->data()), text);
    EXPECT_EQ(ibv_dereg_mr(mr), 0);
  }
}

TEST_P(MemoryFileTest, OneThatCouldShrinkIsLeftToTheKernel) {
  const os::Fd file{memfd_create("isthmus-test-loose", MFD_CLOEXEC)};
  ASSERT_EQ(ftruncate(file.get(), kFileBytes), 0);
  ibv_mr* mr = add(file, 0, kFileBytes);
  ASSERT_NE(mr, nullptr);
  std::strcpy(client_->memory.data(), "loose");
  EXPECT_EQ(move(IBV_WR_RDMA_WRITE, kIova, mr->rkey, 6), IBV_WC_SUCCESS);
  look();
  char found[6]{};
  EXPECT_EQ(pread(file.get(), found, sizeof found, 0), 6);
  EXPECT_STREQ(found, "loose");
  EXPECT_EQ(mappings_of("isthmus-test-loose"), 1);  // The region's alone.
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
}

TEST_P(MemoryFileTest, WhatIsNoPartOfAFileIsRefused) {
  const os::Fd file = *os::create_shared_memory("isthmus-test-parts", kFileBytes);
  EXPECT_EQ(add(file, kPage, kFileBytes), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(add(file, ~std::uint64_t{0} - kPage + 1, 2 * kPage), nullptr);
  EXPECT_EQ(add(file, 0, 0), nullptr);
  EXPECT_EQ(add(file, 8, kPage, kIova), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(add(os::Fd{}, 0, kPage), nullptr);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(ibv_reg_dmabuf_mr(server_->pd, 0, kPage, kIova, file.get(), IBV_ACCESS_ON_DEMAND),
            nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
}

INSTANTIATE_TEST_SUITE_P(Channels, MemoryFileTest, ::testing::Values("auto", "roce"),
                         [](const auto& channel) { return std::string{channel.param}; });

}  // namespace
}  // namespace isthmus::verbs
