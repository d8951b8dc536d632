#include "rdma/receive_queue.h"

#include <algorithm>
#include <bit>

namespace isthmus::rdma {

ReceiveQueue::ReceiveQueue(std::uint32_t max_requests, std::uint32_t max_sge)
    : max_requests_(max_requests),
      max_sge_(max_sge),
      mask_(std::bit_ceil(std::max(max_requests, 1u)) - 1),
      slots_(mask_ + std::size_t{1}),
      sges_(slots_.size() * max_sge) {}

int ReceiveQueue::post(const ibv_recv_wr& wr) {
  if (wr.num_sge < 0 || static_cast<std::uint32_t>(wr.num_sge) > max_sge_) return EINVAL;
  if (size() == max_requests_) return ENOMEM;
  const std::size_t index = tail_ & mask_;
  slots_[index] = {wr.wr_id, static_cast<std::uint32_t>(wr.num_sge)};
  std::copy_n(wr.sg_list, wr.num_sge, sges_.data() + index * max_sge_);
  ++tail_;
  return 0;
}

bool ReceiveQueue::take(Receive& receive) {
  if (empty()) return false;
  const std::size_t index = head_++ & mask_;
  receive.wr_id = slots_[index].wr_id;
  receive.sge_count = slots_[index].sge_count;
  receive.bytes = 0;
  const ibv_sge* sges = sges_.data() + index * max_sge_;
  for (std::uint32_t i = 0; i < receive.sge_count; ++i) {
    receive.sges[i] = sges[i];
    receive.bytes += sges[i].length;
  }
  return true;
}

bool ReceiveQueue::resize(std::uint32_t max_requests) {
  if (size() > max_requests) return false;
  ReceiveQueue larger(max_requests, max_sge_);
  for (Receive receive; take(receive);) {
    ibv_recv_wr wr{};
    wr.wr_id = receive.wr_id;
    wr.sg_list = receive.sges.data();
    wr.num_sge = static_cast<int>(receive.sge_count);
    larger.post(wr);
  }
  *this = std::move(larger);
  return true;
}

}  // namespace isthmus::rdma
