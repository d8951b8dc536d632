// EndpointForTests: a device opened through the public interface, with one of each object.
#pragma once

#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include <array>
#include <cstring>
#include <vector>

#include "os/clock.h"

namespace isthmus::verbs {

constexpr std::uint64_t kPatienceNs = 10 * os::kNsPerSecond;

inline ibv_context* open_first_device() {
  int count = 0;
  ibv_device** list = ibv_get_device_list(&count);
  ibv_context* context = count > 0 ? ibv_open_device(list[0]) : nullptr;
  ibv_free_device_list(list);
  return context;
}

struct EndpointOptions {
  ibv_qp_type type = IBV_QPT_RC;
  std::uint64_t send_operations = 0;  // IBV_QP_EX_WITH_*: 0 for none of ibv_wr_*.
  bool with_channel = false;
  std::uint32_t max_inline = 64;
};

class EndpointForTests {
 public:
  explicit EndpointForTests(const EndpointOptions& options = {}) : memory(4096) {
    context = open_first_device();
    EXPECT_NE(context, nullptr);
    pd = ibv_alloc_pd(context);
    if (options.with_channel) channel = ibv_create_comp_channel(context);
    cq = ibv_create_cq(context, 64, this, channel, 0);
    mr = ibv_reg_mr(pd, memory.data(), memory.size(),
                    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
                        IBV_ACCESS_REMOTE_ATOMIC);
    ibv_qp_init_attr_ex init{};
    init.send_cq = init.recv_cq = cq;
    init.cap = {.max_send_wr = 16,
                .max_recv_wr = 16,
                .max_send_sge = 2,
                .max_recv_sge = 2,
                .max_inline_data = options.max_inline};
    init.qp_type = options.type;
    init.comp_mask = IBV_QP_INIT_ATTR_PD;
    init.pd = pd;
    if (options.send_operations) {
      init.comp_mask |= IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
      init.send_ops_flags = options.send_operations;
    }
    qp = ibv_create_qp_ex(context, &init);
    EXPECT_NE(qp, nullptr);
    EXPECT_EQ(ibv_query_gid(context, 1, 0, &gid), 0);
  }

  ~EndpointForTests() {
    if (qp) {
      EXPECT_EQ(ibv_destroy_qp(qp), 0);
    }
    EXPECT_EQ(ibv_dereg_mr(mr), 0);
    EXPECT_EQ(ibv_destroy_cq(cq), 0);
    if (channel) {
      EXPECT_EQ(ibv_destroy_comp_channel(channel), 0);
    }
    EXPECT_EQ(ibv_dealloc_pd(pd), 0);
    EXPECT_EQ(ibv_close_device(context), 0);
  }

  EndpointForTests(const EndpointForTests&) = delete;
  EndpointForTests& operator=(const EndpointForTests&) = delete;

  // To INIT, RTR and RTS; the errno value of the first change that failed. A timeout of 18 is one
  // second: the machine may be busy.
  int connect_to(std::uint32_t qpn, const ibv_gid& peer_gid, std::uint8_t timeout = 18) {
    ibv_qp_attr attr{};
    attr.qp_state = IBV_QPS_INIT;
    attr.port_num = 1;
    attr.qp_access_flags =
        IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;
    int error = ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PORT | IBV_QP_PKEY_INDEX |
                                             IBV_QP_ACCESS_FLAGS);
    if (error != 0) return error;
    attr.qp_state = IBV_QPS_RTR;
    attr.path_mtu = IBV_MTU_1024;
    attr.dest_qp_num = qpn;
    attr.max_dest_rd_atomic = 4;
    attr.min_rnr_timer = 12;
    attr.ah_attr.is_global = 1;
    attr.ah_attr.port_num = 1;
    attr.ah_attr.grh.dgid = peer_gid;
    attr.ah_attr.grh.hop_limit = 64;
    error = ibv_modify_qp(qp, &attr,
                          IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                              IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    if (error != 0) return error;
    attr.qp_state = IBV_QPS_RTS;
    attr.timeout = timeout;
    attr.retry_cnt = 7;
    attr.rnr_retry = 7;
    attr.max_rd_atomic = 4;
    return ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                                        IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                                        IBV_QP_MAX_QP_RD_ATOMIC);
  }

  int post_receive(std::uint64_t wr_id) {
    ibv_sge sge{.addr = reinterpret_cast<std::uintptr_t>(memory.data() + 2048),
                .length = 2048,
                .lkey = mr->lkey};
    ibv_recv_wr wr{.wr_id = wr_id, .next = nullptr, .sg_list = &sge, .num_sge = 1};
    ibv_recv_wr* bad = nullptr;
    return ibv_post_recv(qp, &wr, &bad);
  }

  int post_send(const char* text, unsigned flags = IBV_SEND_SIGNALED) {
    std::strcpy(memory.data(), text);
    ibv_sge sge{.addr = reinterpret_cast<std::uintptr_t>(memory.data()),
                .length = static_cast<std::uint32_t>(std::strlen(text) + 1),
                .lkey = mr->lkey};
    ibv_send_wr wr{};
    wr.wr_id = 1;
    wr.sg_list = &sge;
    wr.num_sge = 1;
    wr.opcode = IBV_WR_SEND;
    wr.send_flags = flags;
    ibv_send_wr* bad = nullptr;
    return ibv_post_send(qp, &wr, &bad);
  }

  // Polls until there is one; a status that does not exist when none came.
  ibv_wc next_completion() {
    ibv_wc wc{};
    const std::uint64_t give_up_ns = os::now_ns() + kPatienceNs;
    while (ibv_poll_cq(cq, 1, &wc) == 0) {
      if (os::now_ns() > give_up_ns) {
        ADD_FAILURE() << "no completion";
        wc.status = static_cast<ibv_wc_status>(-1);
        break;
      }
    }
    return wc;
  }

  const char* received() const { return memory.data() + 2048; }

  std::vector<char> memory;  // The first half to send from, the second to receive into.
  ibv_context* context = nullptr;
  ibv_pd* pd = nullptr;
  ibv_comp_channel* channel = nullptr;
  ibv_cq* cq = nullptr;
  ibv_mr* mr = nullptr;
  ibv_qp* qp = nullptr;
  ibv_gid gid{};
};

inline void connect(EndpointForTests& one, EndpointForTests& other) {
  ASSERT_EQ(one.connect_to(other.qp->qp_num, other.gid), 0);
  ASSERT_EQ(other.connect_to(one.qp->qp_num, one.gid), 0);
}

}  // namespace isthmus::verbs
