// Goal: the public interface works as the manual pages say, from listing a device to its end.
// Method: a daemon on a thread of this program, devices opened from it, no private header.
#include <endian.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <infiniband/verbs.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <thread>
#include <utility>

#include "rdma/limits.h"
#include "verbs/daemon_for_tests.h"
#include "verbs/endpoint_for_tests.h"

// Exported without a declaration in verbs.h, and called all the same.
extern "C" int ibv_read_sysfs_file(const char* dir, const char* file, char* buf, size_t size);

namespace isthmus::verbs {
namespace {

class DeviceTest : public testing::Test {
 protected:
  DaemonForTests daemon_;
};

TEST(WithoutDaemon, TheListIsEmpty) {
  setenv("ISTHMUS_SOCKET", "/nonexistent/isthmusd.sock", 1);
  int count = -1;
  ibv_device** list = ibv_get_device_list(&count);
  ASSERT_NE(list, nullptr);
  EXPECT_EQ(count, 0);
  EXPECT_EQ(list[0], nullptr);
  ibv_free_device_list(list);
}

TEST_F(DeviceTest, IsListedWithItsNames) {
  int count = 0;
  ibv_device** list = ibv_get_device_list(&count);
  ASSERT_EQ(count, 1);
  EXPECT_STREQ(ibv_get_device_name(list[0]), "isthmus0");
  // The connection manager, which is the daemon's, names the device by the same number.
  std::uint64_t guid = 0;
  ibv_context* context = ibv_open_device(list[0]);
  daemon_.run_in_daemon([&](control::FunctionService& functions) {
    functions.for_each([&](const auto& function) { guid = function.place->node_guid(); });
  });
  EXPECT_NE(guid, 0u);
  EXPECT_EQ(ibv_get_device_guid(list[0]), htobe64(guid));
  EXPECT_EQ(ibv_close_device(context), 0);
  char text[64];
  EXPECT_EQ(ibv_read_sysfs_file(list[0]->ibdev_path, "node_type", text, sizeof text), 5);
  EXPECT_STREQ(text, "1: CA");
  EXPECT_EQ(ibv_read_sysfs_file(list[0]->ibdev_path, "no_such_file", text, sizeof text), -1);
  ibv_free_device_list(list);
}

TEST_F(DeviceTest, AnswersForItsPortAndNoOther) {
  ibv_context* context = open_first_device();
  ASSERT_NE(context, nullptr);
  ibv_port_attr port{};
  EXPECT_EQ(ibv_query_port(context, 1, &port), 0);
  EXPECT_EQ(port.state, IBV_PORT_ACTIVE);
  EXPECT_EQ(port.active_mtu, IBV_MTU_4096);
  EXPECT_EQ(ibv_query_port(context, 2, &port), EINVAL);
  ibv_gid_entry entry{};
  EXPECT_EQ(ibv_query_gid_ex(context, 1, 0, &entry, 0), 0);
  EXPECT_EQ(entry.gid_type, static_cast<std::uint32_t>(IBV_GID_TYPE_ROCE_V2));
  EXPECT_EQ(ibv_query_gid_ex(context, 1, 1, &entry, 0), ENODATA);
  std::array<ibv_gid_entry, 4> table;
  EXPECT_EQ(ibv_query_gid_table(context, table.data(), table.size(), 0), 1);
  EXPECT_EQ(ibv_query_gid_table(context, table.data(), 0, 0), -EINVAL);
  __be16 pkey = 0;
  EXPECT_EQ(ibv_query_pkey(context, 1, 0, &pkey), 0);
  EXPECT_EQ(pkey, 0xffff);
  EXPECT_EQ(ibv_close_device(context), 0);
}

// A program of another release brings a shorter or longer struct.
TEST_F(DeviceTest, HonoursTheCallersSizes) {
  ibv_context* context = open_first_device();
  verbs_context* verbs = verbs_get_ctx(context);
  std::array<std::uint8_t, 80> bytes;
  bytes.fill(0xee);
  // SAFETY: big enough for any size asked below.
  auto* port = reinterpret_cast<ibv_port_attr*>(bytes.data());
  ASSERT_EQ(verbs->query_port(context, 1, port, 8), 0);
  EXPECT_EQ(port->state, IBV_PORT_ACTIVE);
  EXPECT_EQ(bytes[8], 0xee);
  ASSERT_EQ(verbs->query_port(context, 1, port, 72), 0);
  EXPECT_EQ(bytes[71], 0);
  EXPECT_EQ(bytes[72], 0xee);
  EXPECT_EQ(ibv_close_device(context), 0);
}

TEST_F(DeviceTest, EnforcesWhatItAdvertises) {
  EndpointForTests end;
  EXPECT_EQ(ibv_create_cq(end.context, 0, nullptr, nullptr, 0), nullptr);
  EXPECT_EQ(errno, EINVAL);
  EXPECT_EQ(ibv_create_cq(end.context, rdma::kMaxCqEntries + 1, nullptr, nullptr, 0), nullptr);
  EXPECT_EQ(ibv_create_cq(end.context, 1, nullptr, nullptr, end.context->num_comp_vectors),
            nullptr);
  EXPECT_EQ(ibv_reg_mr(end.pd, end.memory.data(), 16, IBV_ACCESS_REMOTE_WRITE), nullptr);
  ibv_qp_init_attr init{};
  init.send_cq = init.recv_cq = end.cq;
  init.qp_type = IBV_QPT_RC;
  init.cap.max_inline_data = rdma::kMaxInlineBytes + 1;
  EXPECT_EQ(ibv_create_qp(end.pd, &init), nullptr);
  init.cap = {.max_send_wr = rdma::kMaxWorkRequests + 1};
  EXPECT_EQ(ibv_create_qp(end.pd, &init), nullptr);
  init.cap = {};
  init.qp_type = IBV_QPT_DRIVER;
  EXPECT_EQ(ibv_create_qp(end.pd, &init), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
  ibv_ah_attr without_grh{};
  without_grh.port_num = 1;
  EXPECT_EQ(ibv_create_ah(end.pd, &without_grh), nullptr);
  EXPECT_EQ(end.post_send("not connected"), EINVAL);
}

TEST_F(DeviceTest, WhatIsInUseStays) {
  EndpointForTests end{{.with_channel = true}};
  EXPECT_EQ(ibv_dealloc_pd(end.pd), EBUSY);
  EXPECT_EQ(ibv_destroy_cq(end.cq), EBUSY);
  EXPECT_EQ(ibv_destroy_comp_channel(end.channel), EBUSY);
}

TEST_F(DeviceTest, CarriesAMessage) {
  EndpointForTests sender;
  EndpointForTests receiver;
  connect(sender, receiver);
  ASSERT_EQ(receiver.post_receive(7), 0);
  ASSERT_EQ(sender.post_send("hello"), 0);
  const ibv_wc arrived = receiver.next_completion();
  EXPECT_EQ(arrived.status, IBV_WC_SUCCESS);
  EXPECT_EQ(arrived.wr_id, 7u);
  EXPECT_EQ(arrived.byte_len, 6u);
  EXPECT_STREQ(receiver.received(), "hello");
  EXPECT_EQ(sender.next_completion().status, IBV_WC_SUCCESS);
}

TEST_F(DeviceTest, PostsAListBuiltStepByStep) {
  EndpointForTests sender{{.send_operations = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_RDMA_WRITE}};
  EndpointForTests receiver;
  connect(sender, receiver);
  ibv_qp_ex* qp = ibv_qp_to_qp_ex(sender.qp);
  ASSERT_NE(qp, nullptr);
  EXPECT_EQ(ibv_qp_to_qp_ex(receiver.qp), nullptr);
  ASSERT_EQ(receiver.post_receive(1), 0);

  // A list that is given up, and one with a mistake. Expect: nothing is posted.
  ibv_wr_start(qp);
  ibv_wr_send(qp);
  ibv_wr_abort(qp);
  ibv_wr_start(qp);
  ibv_wr_send(qp);
  std::array<ibv_sge, 3> too_many{};
  ibv_wr_set_sge_list(qp, too_many.size(), too_many.data());
  EXPECT_EQ(ibv_wr_complete(qp), EINVAL);

  ibv_wr_start(qp);
  qp->wr_id = 11;
  qp->wr_flags = 0;
  char written[] = "written";
  ibv_wr_rdma_write(qp, receiver.mr->rkey,
                    reinterpret_cast<std::uintptr_t>(receiver.memory.data()));
  ibv_wr_set_inline_data(qp, written, sizeof written);
  qp->wr_id = 12;
  qp->wr_flags = IBV_SEND_SIGNALED;
  std::array parts{ibv_data_buf{written, 2}, ibv_data_buf{written + 2, sizeof written - 2}};
  ibv_wr_send(qp);
  ibv_wr_set_inline_data_list(qp, parts.size(), parts.data());
  std::strcpy(written, "changed");  // Inline data was copied.
  ASSERT_EQ(ibv_wr_complete(qp), 0);

  EXPECT_EQ(receiver.next_completion().byte_len, sizeof written);
  EXPECT_STREQ(receiver.received(), "written");
  EXPECT_STREQ(receiver.memory.data(), "written");
  EXPECT_EQ(sender.next_completion().wr_id, 12u);
}

TEST_F(DeviceTest, ReadsCompletionsFieldByField) {
  EndpointForTests sender;
  EndpointForTests receiver;
  ibv_cq_init_attr_ex attr{};
  attr.cqe = 8;
  attr.wc_flags = IBV_WC_EX_WITH_BYTE_LEN | IBV_WC_EX_WITH_COMPLETION_TIMESTAMP;
  ibv_cq_ex* cq = ibv_create_cq_ex(receiver.context, &attr);
  ASSERT_NE(cq, nullptr);
  ibv_poll_cq_attr poll_attr{};
  EXPECT_EQ(ibv_start_poll(cq, &poll_attr), ENOENT);
  poll_attr.comp_mask = 1;
  EXPECT_EQ(ibv_start_poll(cq, &poll_attr), EINVAL);
  EXPECT_EQ(ibv_destroy_cq(ibv_cq_ex_to_cq(cq)), 0);
  attr.wc_flags = IBV_WC_EX_WITH_TM_INFO;
  EXPECT_EQ(ibv_create_cq_ex(receiver.context, &attr), nullptr);
  EXPECT_EQ(errno, EOPNOTSUPP);
}

TEST_F(DeviceTest, WakesAThreadThatWaitsForAnEvent) {
  EndpointForTests sender;
  EndpointForTests receiver{{.with_channel = true}};
  connect(sender, receiver);
  ASSERT_EQ(receiver.post_receive(1), 0);
  ASSERT_EQ(ibv_req_notify_cq(receiver.cq, 0), 0);
  std::thread waiter{[&] {
    ibv_cq* cq = nullptr;
    void* cookie = nullptr;
    EXPECT_EQ(ibv_get_cq_event(receiver.channel, &cq, &cookie), 0);
    EXPECT_EQ(cq, receiver.cq);
    EXPECT_EQ(cookie, &receiver);
  }};
  ASSERT_EQ(sender.post_send("wake up"), 0);
  waiter.join();
  EXPECT_EQ(receiver.next_completion().status, IBV_WC_SUCCESS);
  EXPECT_EQ(sender.next_completion().status, IBV_WC_SUCCESS);

  // Not acknowledged yet. Expect: destruction waits for it.
  ASSERT_EQ(ibv_destroy_qp(std::exchange(receiver.qp, nullptr)), 0);
  ibv_cq* old = std::exchange(receiver.cq, ibv_create_cq(receiver.context, 1, nullptr, nullptr, 0));
  std::atomic<bool> acknowledged = false;
  std::thread slow{[&] {
    acknowledged = true;
    ibv_ack_cq_events(old, 1);
  }};
  EXPECT_EQ(ibv_destroy_cq(old), 0);
  EXPECT_TRUE(acknowledged);
  slow.join();
}

TEST_F(DeviceTest, AChannelCanBeWaitedForOutside) {
  EndpointForTests sender;
  EndpointForTests receiver{{.with_channel = true}};
  connect(sender, receiver);
  fcntl(receiver.channel->fd, F_SETFL, fcntl(receiver.channel->fd, F_GETFL) | O_NONBLOCK);
  ibv_cq* cq = nullptr;
  void* cookie = nullptr;
  EXPECT_EQ(ibv_get_cq_event(receiver.channel, &cq, &cookie), -1);
  EXPECT_EQ(errno, EAGAIN);

  constexpr int kMessages = 20;
  for (int i = 0; i < kMessages; ++i) {
    ASSERT_EQ(receiver.post_receive(1), 0);
    ASSERT_EQ(ibv_req_notify_cq(receiver.cq, 0), 0);
    ASSERT_EQ(sender.post_send("outside"), 0);
    pollfd wait{receiver.channel->fd, POLLIN, 0};
    ASSERT_EQ(::poll(&wait, 1, 10'000), 1);
    ASSERT_EQ(ibv_get_cq_event(receiver.channel, &cq, &cookie), 0);
    ibv_ack_cq_events(cq, 1);
    EXPECT_EQ(receiver.next_completion().status, IBV_WC_SUCCESS);
    EXPECT_EQ(sender.next_completion().status, IBV_WC_SUCCESS);
    // Expect: the descriptor is quiet again.
    EXPECT_EQ(::poll(&wait, 1, 0), 0);
  }
}

// Nobody polls and nobody rings: the sleeper itself has to notice that its peer is gone.
TEST_F(DeviceTest, ASleeperHearsOfAPeerThatNeverAnswers) {
  EndpointForTests sender{{.with_channel = true}};
  ASSERT_EQ(sender.connect_to(sender.qp->qp_num ^ 1, sender.gid, 10), 0);
  ASSERT_EQ(ibv_req_notify_cq(sender.cq, 0), 0);
  ASSERT_EQ(sender.post_send("anybody there?"), 0);
  ibv_cq* cq = nullptr;
  void* cookie = nullptr;
  ASSERT_EQ(ibv_get_cq_event(sender.channel, &cq, &cookie), 0);
  ibv_ack_cq_events(cq, 1);
  EXPECT_EQ(sender.next_completion().status, IBV_WC_RETRY_EXC_ERR);
}

TEST_F(DeviceTest, PolicyRefusesAConnection) {
  EndpointForTests one;
  EndpointForTests other;
  daemon_.deny_all();
  EXPECT_EQ(one.connect_to(other.qp->qp_num, other.gid), EACCES);
}

TEST_F(DeviceTest, ARevokedConnectionEndsWithAnEvent) {
  EndpointForTests one;
  EndpointForTests other;
  connect(one, other);
  ASSERT_EQ(one.post_receive(5), 0);
  daemon_.run_in_daemon([&](control::FunctionService& functions) {
    EXPECT_TRUE(functions.revoke(one.qp->qp_num).has_value());
  });
  ibv_async_event event{};
  ASSERT_EQ(ibv_get_async_event(one.context, &event), 0);
  EXPECT_EQ(event.event_type, IBV_EVENT_QP_FATAL);
  EXPECT_EQ(event.element.qp, one.qp);
  ibv_ack_async_event(&event);
  EXPECT_EQ(one.next_completion().status, IBV_WC_WR_FLUSH_ERR);
}

TEST_F(DeviceTest, ADestroyedQueuesEventsAreGone) {
  EndpointForTests one;
  EndpointForTests other;
  connect(one, other);
  daemon_.run_in_daemon([&](control::FunctionService& functions) {
    EXPECT_TRUE(functions.revoke(one.qp->qp_num).has_value());
  });
  pollfd wait{one.context->async_fd, POLLIN, 0};
  ASSERT_EQ(::poll(&wait, 1, 10'000), 1);
  ASSERT_EQ(ibv_destroy_qp(one.qp), 0);
  one.qp = nullptr;
  EXPECT_EQ(::poll(&wait, 1, 0), 0);
}

TEST_F(DeviceTest, AnImportedDeviceIsTheSameOne) {
  EndpointForTests end;
  ibv_context* again = ibv_import_device(end.context->cmd_fd);
  ASSERT_NE(again, nullptr);
  ibv_pd* pd = ibv_import_pd(again, end.pd->handle);
  ASSERT_NE(pd, nullptr);
  ibv_mr* mr = ibv_import_mr(pd, end.mr->handle);
  ASSERT_NE(mr, nullptr);
  EXPECT_EQ(mr->rkey, end.mr->rkey);
  ibv_unimport_mr(mr);
  ibv_unimport_pd(pd);
  EXPECT_EQ(ibv_import_pd(again, 0xffff), nullptr);
  EXPECT_EQ(ibv_close_device(again), 0);
  EXPECT_EQ(ibv_import_device(end.context->async_fd), nullptr);
}

TEST_F(DeviceTest, DeviceMemoryIsRegisteredFromZero) {
  EndpointForTests end;
  ibv_alloc_dm_attr attr{.length = 256, .log_align_req = 0, .comp_mask = 0};
  ibv_dm* dm = ibv_alloc_dm(end.context, &attr);
  ASSERT_NE(dm, nullptr);
  const std::uint64_t value = 42;
  EXPECT_EQ(ibv_memcpy_to_dm(dm, 8, &value, sizeof value), 0);
  EXPECT_NE(ibv_memcpy_to_dm(dm, 252, &value, sizeof value), 0);
  EXPECT_EQ(ibv_reg_dm_mr(end.pd, dm, 0, 256, IBV_ACCESS_LOCAL_WRITE), nullptr);
  ibv_mr* mr = ibv_reg_dm_mr(end.pd, dm, 0, 256, IBV_ACCESS_ZERO_BASED | IBV_ACCESS_LOCAL_WRITE);
  ASSERT_NE(mr, nullptr);
  EXPECT_EQ(ibv_free_dm(dm), EBUSY);
  EXPECT_EQ(ibv_dereg_mr(mr), 0);
  EXPECT_EQ(ibv_free_dm(dm), 0);
}

// The child exits with the number of its first wrong answer.
int use_in_child(EndpointForTests& inherited) {
  ibv_wc wc;
  if (ibv_poll_cq(inherited.cq, 1, &wc) >= 0) return 1;
  if (inherited.post_send("from the child") != EIO) return 2;
  if (ibv_alloc_pd(inherited.context) != nullptr) return 3;
  if (ibv_destroy_qp(inherited.qp) != EIO) return 4;
  if (ibv_close_device(inherited.context) != 0) return 5;
#if defined(__SANITIZE_THREAD__)
  return 0;  // ThreadSanitizer ends a forked child that starts a thread, as the next step does.
#endif
  ibv_context* own = open_first_device();
  if (!own) return 6;
  ibv_port_attr port;
  if (ibv_query_port(own, 1, &port) != 0) return 7;
  if (ibv_close_device(own) != 0) return 8;
  return 0;
}

TEST_F(DeviceTest, AForkedChildHasNoneOfItAndCanOpenItsOwn) {
  EndpointForTests sender;
  EndpointForTests receiver;
  connect(sender, receiver);
  const pid_t child = fork();
  if (child == 0) _exit(use_in_child(sender));
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  // Expect: the parent does not notice.
  ASSERT_EQ(receiver.post_receive(1), 0);
  ASSERT_EQ(sender.post_send("still here"), 0);
  EXPECT_EQ(receiver.next_completion().status, IBV_WC_SUCCESS);
  EXPECT_EQ(sender.next_completion().status, IBV_WC_SUCCESS);
}

}  // namespace
}  // namespace isthmus::verbs
