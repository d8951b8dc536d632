#include "rdma/send_queue.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "rdma/limits.h"

namespace isthmus::rdma {
namespace {

// Message length, or UINT64_MAX when it is beyond the device's limit.
std::uint64_t total_length(const ibv_send_wr& wr) {
  std::uint64_t sum = 0;
  for (int i = 0; i < wr.num_sge; ++i) sum += wr.sg_list[i].length;
  return sum;
}

void copy_inline(const ibv_send_wr& wr, std::byte* out) {
  for (int i = 0; i < wr.num_sge; ++i) {
    // SAFETY: inline data is read from the program's own addresses during the call.
    std::memcpy(out, reinterpret_cast<const void*>(wr.sg_list[i].addr), wr.sg_list[i].length);
    out += wr.sg_list[i].length;
  }
}

void copy_operation(const ibv_send_wr& wr, bool is_datagram, SendEntry& entry) {
  if (is_datagram) {
    // SAFETY: address handles of this library begin with their ABI object.
    const auto* handle = reinterpret_cast<const AddressHandle*>(wr.wr.ud.ah);
    entry.path = handle->path;
    entry.ud = {wr.wr.ud.remote_qpn, wr.wr.ud.remote_qkey};
    return;
  }
  switch (wr.opcode) {
    case IBV_WR_ATOMIC_CMP_AND_SWP:
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
      entry.remote_address = wr.wr.atomic.remote_addr;
      entry.rkey = wr.wr.atomic.rkey;
      entry.atomic = {wr.wr.atomic.compare_add, wr.wr.atomic.swap};
      break;
    case IBV_WR_ATOMIC_WRITE:
      entry.remote_address = wr.wr.rdma.remote_addr;
      entry.rkey = wr.wr.rdma.rkey;
      // SAFETY: eight bytes of the program's own, checked by the caller, read during the call.
      std::memcpy(&entry.atomic.compare_add, reinterpret_cast<const void*>(wr.sg_list[0].addr), 8);
      break;
    case IBV_WR_BIND_MW:
      entry.rkey = wr.bind_mw.rkey;
      entry.bind = {wr.bind_mw.mw->rkey,
                    wr.bind_mw.bind_info.mr ? wr.bind_mw.bind_info.mr->lkey : 0,
                    wr.bind_mw.bind_info.addr, wr.bind_mw.bind_info.length,
                    wr.bind_mw.bind_info.mw_access_flags};
      break;
    default:
      entry.remote_address = wr.wr.rdma.remote_addr;
      entry.rkey = wr.wr.rdma.rkey;
      break;
  }
}

}  // namespace

SendQueue::SendQueue(std::uint32_t max_requests, std::uint32_t max_sge, std::uint32_t max_inline)
    : max_requests_(max_requests),
      max_sge_(max_sge),
      max_inline_(max_inline),
      mask_(std::bit_ceil(std::max(max_requests, 1u)) - 1),
      entries_(mask_ + std::size_t{1}),
      sges_(entries_.size() * max_sge),
      inline_(entries_.size() * max_inline) {}

int SendQueue::post(const ibv_send_wr& wr, bool is_datagram) {
  if (full()) return ENOMEM;
  if (wr.num_sge < 0 || static_cast<std::uint32_t>(wr.num_sge) > max_sge_) return EINVAL;
  const bool in_entry = wr.opcode == IBV_WR_ATOMIC_WRITE;
  const bool has_data =
      wr.opcode != IBV_WR_BIND_MW && wr.opcode != IBV_WR_LOCAL_INV && !in_entry;
  const std::uint64_t length = has_data || in_entry ? total_length(wr) : 0;
  if (in_entry && (wr.num_sge != 1 || length != 8)) return EINVAL;
  const bool is_inline = has_data && (wr.send_flags & IBV_SEND_INLINE);
  if (length > kMaxMessageBytes || (is_inline && length > max_inline_)) return EINVAL;

  SendEntry& entry = at(tail_);
  entry.wr_id = wr.wr_id;
  entry.opcode = wr.opcode;
  entry.flags = wr.send_flags;
  entry.length = static_cast<std::uint32_t>(length);
  entry.immediate = wr.imm_data;
  entry.srq_number = wr.qp_type.xrc.remote_srqn;
  entry.status = IBV_WC_SUCCESS;
  entry.started = entry.done = false;
  entry.received = entry.requested = 0;
  copy_operation(wr, is_datagram, entry);
  if (is_inline) {
    entry.sge_count = 0;
    copy_inline(wr, inline_bytes(tail_));
  } else {
    entry.flags &= ~static_cast<unsigned>(IBV_SEND_INLINE);
    entry.sge_count = has_data ? static_cast<std::uint32_t>(wr.num_sge) : 0;
    std::copy_n(wr.sg_list, entry.sge_count, sges_.data() + (tail_ & mask_) * max_sge_);
  }
  ++tail_;
  return 0;
}

}  // namespace isthmus::rdma
