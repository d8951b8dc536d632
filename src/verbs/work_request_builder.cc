#include "verbs/work_request_builder.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

#include "verbs/operations.h"

namespace isthmus::verbs {
namespace {

WorkRequestBuilder& of(ibv_qp_ex* qp) { return *Qp::of(qp).builder; }

void atomic(ibv_qp_ex* qp, ibv_wr_opcode opcode, std::uint32_t rkey, std::uint64_t address,
            std::uint64_t compare_add, std::uint64_t swap) {
  ibv_send_wr& wr = of(qp).add(*qp, opcode);
  wr.wr.atomic = {
      .remote_addr = address, .compare_add = compare_add, .swap = swap, .rkey = rkey};
}

void wr_atomic_cmp_swp(ibv_qp_ex* qp, std::uint32_t rkey, std::uint64_t address,
                       std::uint64_t compare, std::uint64_t swap) {
  atomic(qp, IBV_WR_ATOMIC_CMP_AND_SWP, rkey, address, compare, swap);
}

void wr_atomic_fetch_add(ibv_qp_ex* qp, std::uint32_t rkey, std::uint64_t address,
                         std::uint64_t add) {
  atomic(qp, IBV_WR_ATOMIC_FETCH_AND_ADD, rkey, address, add, 0);
}

void wr_bind_mw(ibv_qp_ex* qp, ibv_mw* mw, std::uint32_t rkey, const ibv_mw_bind_info* info) {
  ibv_send_wr& wr = of(qp).add(*qp, IBV_WR_BIND_MW);
  wr.bind_mw.mw = mw;
  wr.bind_mw.rkey = rkey;
  wr.bind_mw.bind_info = *info;
}

void wr_local_inv(ibv_qp_ex* qp, std::uint32_t rkey) {
  of(qp).add(*qp, IBV_WR_LOCAL_INV).invalidate_rkey = rkey;
}

ibv_send_wr& rdma_request(ibv_qp_ex* qp, ibv_wr_opcode opcode, std::uint32_t rkey,
                          std::uint64_t address) {
  ibv_send_wr& wr = of(qp).add(*qp, opcode);
  wr.wr.rdma = {.remote_addr = address, .rkey = rkey};
  return wr;
}

void wr_rdma_read(ibv_qp_ex* qp, std::uint32_t rkey, std::uint64_t address) {
  rdma_request(qp, IBV_WR_RDMA_READ, rkey, address);
}

void wr_rdma_write(ibv_qp_ex* qp, std::uint32_t rkey, std::uint64_t address) {
  rdma_request(qp, IBV_WR_RDMA_WRITE, rkey, address);
}

void wr_atomic_write(ibv_qp_ex* qp, std::uint32_t rkey, std::uint64_t address,
                     const void* value) {
  rdma_request(qp, IBV_WR_ATOMIC_WRITE, rkey, address);
  of(qp).set_value(value);
}

void wr_rdma_write_imm(ibv_qp_ex* qp, std::uint32_t rkey, std::uint64_t address,
                       __be32 immediate) {
  rdma_request(qp, IBV_WR_RDMA_WRITE_WITH_IMM, rkey, address).imm_data = immediate;
}

void wr_send(ibv_qp_ex* qp) { of(qp).add(*qp, IBV_WR_SEND); }

void wr_send_imm(ibv_qp_ex* qp, __be32 immediate) {
  of(qp).add(*qp, IBV_WR_SEND_WITH_IMM).imm_data = immediate;
}

void wr_send_inv(ibv_qp_ex* qp, std::uint32_t rkey) {
  of(qp).add(*qp, IBV_WR_SEND_WITH_INV).invalidate_rkey = rkey;
}

void wr_set_ud_addr(ibv_qp_ex* qp, ibv_ah* ah, std::uint32_t qpn, std::uint32_t qkey) {
  of(qp).newest().wr.ud = {.ah = ah, .remote_qpn = qpn, .remote_qkey = qkey};
}

void wr_set_xrc_srqn(ibv_qp_ex* qp, std::uint32_t srqn) {
  of(qp).newest().qp_type.xrc.remote_srqn = srqn;
}

void wr_set_inline_data(ibv_qp_ex* qp, void* address, std::size_t length) {
  const ibv_data_buf buffer{.addr = address, .length = length};
  of(qp).set_inline(&buffer, 1);
}

void wr_set_inline_data_list(ibv_qp_ex* qp, std::size_t count, const ibv_data_buf* buffers) {
  of(qp).set_inline(buffers, count);
}

void wr_set_sge(ibv_qp_ex* qp, std::uint32_t lkey, std::uint64_t address, std::uint32_t length) {
  const ibv_sge sge{.addr = address, .length = length, .lkey = lkey};
  of(qp).set_sges(&sge, 1);
}

void wr_set_sge_list(ibv_qp_ex* qp, std::size_t count, const ibv_sge* sges) {
  of(qp).set_sges(sges, count);
}

void wr_start(ibv_qp_ex* qp) { of(qp).start(); }
int wr_complete(ibv_qp_ex* qp) { return of(qp).complete(Qp::of(qp)); }
void wr_abort(ibv_qp_ex* qp) { of(qp).abort(); }

std::uint64_t operations_of(ibv_qp_type type) {
  constexpr std::uint64_t kSends = IBV_QP_EX_WITH_SEND | IBV_QP_EX_WITH_SEND_WITH_IMM;
  constexpr std::uint64_t kUnreliable = kSends | IBV_QP_EX_WITH_RDMA_WRITE |
                                        IBV_QP_EX_WITH_RDMA_WRITE_WITH_IMM |
                                        IBV_QP_EX_WITH_LOCAL_INV | IBV_QP_EX_WITH_BIND_MW;
  switch (type) {
    case IBV_QPT_RC:
    case IBV_QPT_XRC_SEND:
      return kUnreliable | IBV_QP_EX_WITH_RDMA_READ | IBV_QP_EX_WITH_ATOMIC_CMP_AND_SWP |
             IBV_QP_EX_WITH_ATOMIC_FETCH_AND_ADD | IBV_QP_EX_WITH_SEND_WITH_INV |
             IBV_QP_EX_WITH_ATOMIC_WRITE;
    case IBV_QPT_UC: return kUnreliable;
    case IBV_QPT_UD: return kSends;
    case IBV_QPT_RAW_PACKET: return IBV_QP_EX_WITH_SEND;
    default: return 0;
  }
}

}  // namespace

WorkRequestBuilder::WorkRequestBuilder(const ibv_qp_cap& cap)
    : cap_(cap),
      requests_(cap.max_send_wr + std::size_t{1}),
      sges_(requests_.size() * cap.max_send_sge),
      inline_(requests_.size() * cap.max_inline_data),
      values_(requests_.size()) {}

bool WorkRequestBuilder::fill(Qp& qp, std::uint64_t operations) {
  if ((operations & ~operations_of(qp.qp_base.qp_type)) != 0) return false;
  qp.wr_atomic_cmp_swp = &wr_atomic_cmp_swp;
  qp.wr_atomic_fetch_add = &wr_atomic_fetch_add;
  qp.wr_atomic_write = &wr_atomic_write;
  qp.wr_bind_mw = &wr_bind_mw;
  qp.wr_local_inv = &wr_local_inv;
  qp.wr_rdma_read = &wr_rdma_read;
  qp.wr_rdma_write = &wr_rdma_write;
  qp.wr_rdma_write_imm = &wr_rdma_write_imm;
  qp.wr_send = &wr_send;
  qp.wr_send_imm = &wr_send_imm;
  qp.wr_send_inv = &wr_send_inv;
  qp.wr_set_ud_addr = &wr_set_ud_addr;
  qp.wr_set_xrc_srqn = &wr_set_xrc_srqn;
  qp.wr_set_inline_data = &wr_set_inline_data;
  qp.wr_set_inline_data_list = &wr_set_inline_data_list;
  qp.wr_set_sge = &wr_set_sge;
  qp.wr_set_sge_list = &wr_set_sge_list;
  qp.wr_start = &wr_start;
  qp.wr_complete = &wr_complete;
  qp.wr_abort = &wr_abort;
  return true;
}

void WorkRequestBuilder::start() {
  lock_.lock();
  count_ = 0;
  error_ = 0;
}

int WorkRequestBuilder::complete(Qp& qp) {
  int error = error_;
  if (error == 0 && count_ > 0) {
    for (std::size_t i = 0; i < count_; ++i) {
      requests_[i].next = i + 1 < count_ ? &requests_[i + 1] : nullptr;
    }
    ibv_send_wr* bad = nullptr;
    error = post_send(qp.abi(), requests_.data(), &bad);
  }
  lock_.unlock();
  return error;
}

void WorkRequestBuilder::abort() { lock_.unlock(); }

ibv_send_wr& WorkRequestBuilder::add(const ibv_qp_ex& qp, ibv_wr_opcode opcode) {
  if (count_ == cap_.max_send_wr) {
    fail(ENOMEM);
  } else {
    ++count_;
  }
  ibv_send_wr& wr = newest();
  wr = {};
  wr.wr_id = qp.wr_id;
  wr.opcode = opcode;
  wr.send_flags = qp.wr_flags;
  return wr;
}

ibv_send_wr& WorkRequestBuilder::newest() {
  // With an error, the one at the end: it is never posted.
  return error_ != 0 || count_ == 0 ? requests_.back() : requests_[count_ - 1];
}

void WorkRequestBuilder::set_sges(const ibv_sge* sges, std::size_t count) {
  if (count > cap_.max_send_sge) {
    fail(EINVAL);
    return;
  }
  ibv_send_wr& wr = newest();
  wr.sg_list = sges_.data() + static_cast<std::size_t>(&wr - requests_.data()) * cap_.max_send_sge;
  wr.num_sge = static_cast<int>(count);
  std::copy_n(sges, count, wr.sg_list);
}

void WorkRequestBuilder::set_value(const void* value) {
  const auto index = static_cast<std::size_t>(&newest() - requests_.data());
  std::memcpy(&values_[index], value, sizeof values_[index]);
  const ibv_sge sge{.addr = reinterpret_cast<std::uintptr_t>(&values_[index]),
                    .length = sizeof values_[index],
                    .lkey = 0};
  set_sges(&sge, 1);
}

void WorkRequestBuilder::set_inline(const ibv_data_buf* buffers, std::size_t count) {
  ibv_send_wr& wr = newest();
  const auto index = static_cast<std::size_t>(&wr - requests_.data());
  std::byte* bytes = inline_.data() + index * cap_.max_inline_data;
  std::size_t used = 0;
  for (std::size_t i = 0; i < count; ++i) {
    if (buffers[i].length > cap_.max_inline_data - used) {
      fail(EINVAL);
      return;
    }
    std::memcpy(bytes + used, buffers[i].addr, buffers[i].length);
    used += buffers[i].length;
  }
  wr.sg_list = sges_.data() + index * cap_.max_send_sge;
  wr.sg_list[0] = {.addr = reinterpret_cast<std::uintptr_t>(bytes),
                   .length = static_cast<std::uint32_t>(used),
                   .lkey = 0};
  wr.num_sge = 1;
  wr.send_flags |= IBV_SEND_INLINE;
}

}  // namespace isthmus::verbs
