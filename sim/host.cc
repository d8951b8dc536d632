#include "sim/host.h"

#include <algorithm>
#include <stdexcept>

#include "os/process.h"

namespace isthmus::sim {
namespace {

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}

void modify(End& end, ibv_qp_attr attr, int mask, const rdma::Admission* admission = nullptr) {
  if (auto result = end.host.engine->modify_qp(*end.qp, attr, mask, admission); !result) {
    throw std::runtime_error(result.error().message);
  }
}

void to_rtr(End& end, End& peer, const ConnectOptions& options) {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_INIT;
  attr.port_num = 1;
  attr.qp_access_flags = kAllAccess;
  attr.qkey = 0x1111'1111;
  const bool datagram = end.qp->type() == IBV_QPT_UD;
  modify(end, attr,
         IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
             (datagram ? IBV_QP_QKEY : IBV_QP_ACCESS_FLAGS));
  attr = {};
  attr.qp_state = IBV_QPS_RTR;
  attr.path_mtu = options.mtu;
  attr.dest_qp_num = peer.qp->qpn();
  attr.rq_psn = options.first_psn;
  attr.max_dest_rd_atomic = options.read_atomic;
  attr.min_rnr_timer = 1;
  attr.ah_attr.is_global = 1;
  const auto& gid = peer.host.address.bytes();
  std::copy(gid.begin(), gid.end(), reinterpret_cast<std::byte*>(attr.ah_attr.grh.dgid.raw));
  rdma::Admission admission;
  if (options.neighbours) admission.neighbour = peer.host.as_neighbour();
  int mask = IBV_QP_STATE;
  if (!datagram) mask |= IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
  if (end.qp->type() == IBV_QPT_RC) mask |= IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
  modify(end, attr, mask, &admission);
}

void to_rts(End& end, const ConnectOptions& options) {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTS;
  attr.timeout = options.timeout;
  attr.retry_cnt = options.retry_count;
  attr.rnr_retry = options.rnr_retry;
  attr.sq_psn = options.first_psn;
  attr.max_rd_atomic = options.read_atomic;
  int mask = IBV_QP_STATE | IBV_QP_SQ_PSN;
  if (end.qp->type() == IBV_QPT_RC) {
    mask |= IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC;
  }
  modify(end, attr, mask);
}

}  // namespace

Host::Host(Network& network, const wire::IpAddress& host_address, std::uint32_t function)
    : address(host_address),
      mapping(must(os::Mapping::create(
          must(os::create_shared_memory("isthmus-sim", sizeof(rdma::Window))),
          sizeof(rdma::Window)))),
      // SAFETY: a window is plain memory and zeros are a valid one.
      window(reinterpret_cast<rdma::Window*>(mapping->data())) {
  engine = std::make_unique<rdma::Engine>(
      rdma::EngineOptions{.window = window,
                          .function = function,
                          .gids = {address},
                          .random = [&network] { return network.random()(); },
                          .now_ns = [&network] { return network.now_ns(); }},
      network.open(address), *this);
}

std::shared_ptr<rdma::PeerWindow> Host::as_neighbour() {
  return std::make_shared<rdma::PeerWindow>(window, os::process_id(), -1, nullptr);
}

End::End(Host& end_host, const EndOptions& options)
    : host(end_host),
      memory(options.memory_bytes),
      pd(must(host.engine->create_pd())),
      send_cq(must(host.engine->create_cq(4096))),
      recv_cq(must(host.engine->create_cq(4096))),
      mr(must(host.engine->create_mr(
          *pd, {.address = memory.data(),
                .length = memory.size(),
                .iova = reinterpret_cast<std::uint64_t>(memory.data()),
                .access = options.access}))),
      qp(must(host.engine->create_qp({.type = options.type,
                                      .pd = pd.get(),
                                      .send_cq = send_cq.get(),
                                      .recv_cq = recv_cq.get(),
                                      .cap = {.max_send_wr = options.depth,
                                              .max_recv_wr = options.depth,
                                              .max_send_sge = 4,
                                              .max_recv_sge = 4,
                                              .max_inline_data = 256},
                                      .signal_all = options.signal_all}))) {}

std::uint64_t End::address_of(std::size_t offset) {
  return reinterpret_cast<std::uint64_t>(memory.data() + offset);
}

ibv_sge End::sge(std::size_t offset, std::size_t bytes) {
  return {address_of(offset), static_cast<std::uint32_t>(bytes), mr->lkey()};
}

int End::post_recv(std::uint64_t wr_id, std::size_t offset, std::size_t bytes) {
  ibv_sge list = sge(offset, bytes);
  ibv_recv_wr wr{.wr_id = wr_id, .next = nullptr, .sg_list = &list, .num_sge = 1};
  ibv_recv_wr* bad = nullptr;
  return host.engine->post_recv(*qp, &wr, &bad);
}

int End::post_send(ibv_send_wr wr, std::vector<ibv_sge> sges) {
  wr.sg_list = sges.data();
  wr.num_sge = static_cast<int>(sges.size());
  ibv_send_wr* bad = nullptr;
  return host.engine->post_send(*qp, &wr, &bad);
}

std::vector<ibv_wc> End::poll(rdma::CompletionQueue& cq) {
  std::vector<ibv_wc> all;
  ibv_wc wc[16];
  while (const int n = host.engine->poll_cq(cq, 16, wc, nullptr)) all.insert(all.end(), wc, wc + n);
  return all;
}

void connect(End& a, End& b, const ConnectOptions& options) {
  to_rtr(a, b, options);
  to_rtr(b, a, options);
  to_rts(a, options);
  to_rts(b, options);
}

bool run_until(Network& network, std::vector<Host*> hosts, const std::function<bool()>& done,
               std::uint64_t limit_ns) {
  const std::uint64_t end = network.now_ns() + limit_ns;
  while (!done()) {
    bool moved = false;
    for (Host* host : hosts) moved |= host->engine->progress();
    if (moved) continue;
    std::uint64_t next = network.next_arrival_ns();
    for (Host* host : hosts) next = std::min(next, host->engine->next_deadline_ns());
    if (network.now_ns() >= end) return done();
    // With nothing to wait for, `done` may still bring more.
    next = std::min(next, network.now_ns() + 1'000'000);
    network.advance_to(std::max(next, network.now_ns() + 1));
  }
  return true;
}

}  // namespace isthmus::sim
