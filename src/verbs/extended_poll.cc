// The extended interface of a CQ: one completion at a time, read field by field.
//
// From a successful start_poll() to end_poll() the completion belongs to the thread that polls,
// so other threads wait; unless the program promised that there are none.
#include <infiniband/verbs.h>

#include "os/clock.h"
#include "verbs/context.h"
#include "verbs/operations.h"

namespace isthmus::verbs {
namespace {

// 0 or ENOENT.
int take_next(Cq& cq) {
  Context& context = *cq.owner;
  context.lock.lock_politely();
  context.progress().note_poll();
  const int polled =
      context.engine().poll_cq(*cq.queue, 1, &cq.current, &cq.current_timestamp_ns);
  context.progress().note_work();
  context.lock.unlock();
  if (polled == 0) return ENOENT;
  cq.status = cq.current.status;
  cq.wr_id = cq.current.wr_id;
  return 0;
}

int start_poll(ibv_cq_ex* abi, ibv_poll_cq_attr* attr) {
  if (attr->comp_mask != 0) return EINVAL;
  Cq& cq = Cq::of(abi);
  if (cq.owner->is_inherited()) return EIO;
  if (!cq.single_threaded) cq.poll_lock.lock();
  const int result = take_next(cq);
  if (result != 0 && !cq.single_threaded) cq.poll_lock.unlock();
  return result;
}

int next_poll(ibv_cq_ex* abi) { return take_next(Cq::of(abi)); }

void end_poll(ibv_cq_ex* abi) {
  Cq& cq = Cq::of(abi);
  if (!cq.single_threaded) cq.poll_lock.unlock();
}

ibv_wc_opcode read_opcode(ibv_cq_ex* cq) { return Cq::of(cq).current.opcode; }
std::uint32_t read_vendor_error(ibv_cq_ex* cq) { return Cq::of(cq).current.vendor_err; }
std::uint32_t read_byte_len(ibv_cq_ex* cq) { return Cq::of(cq).current.byte_len; }
// Also the invalidated key, which shares its place.
__be32 read_imm_data(ibv_cq_ex* cq) { return Cq::of(cq).current.imm_data; }
std::uint32_t read_qp_num(ibv_cq_ex* cq) { return Cq::of(cq).current.qp_num; }
std::uint32_t read_src_qp(ibv_cq_ex* cq) { return Cq::of(cq).current.src_qp; }
unsigned read_wc_flags(ibv_cq_ex* cq) { return Cq::of(cq).current.wc_flags; }
std::uint32_t read_slid(ibv_cq_ex* cq) { return Cq::of(cq).current.slid; }
std::uint8_t read_sl(ibv_cq_ex* cq) { return Cq::of(cq).current.sl; }
std::uint8_t read_dlid_path_bits(ibv_cq_ex* cq) { return Cq::of(cq).current.dlid_path_bits; }
std::uint64_t read_timestamp(ibv_cq_ex* cq) { return Cq::of(cq).current_timestamp_ns; }

std::uint64_t read_wall_clock(ibv_cq_ex* cq) {
  return os::wall_clock_ns() - os::now_ns() + Cq::of(cq).current_timestamp_ns;
}

}  // namespace

void fill_extended_poll(ibv_cq_ex& cq, std::uint64_t wc_flags) {
  cq.start_poll = &start_poll;
  cq.next_poll = &next_poll;
  cq.end_poll = &end_poll;
  cq.read_opcode = &read_opcode;
  cq.read_vendor_err = &read_vendor_error;
  cq.read_wc_flags = &read_wc_flags;
  if (wc_flags & IBV_WC_EX_WITH_BYTE_LEN) cq.read_byte_len = &read_byte_len;
  if (wc_flags & IBV_WC_EX_WITH_IMM) cq.read_imm_data = &read_imm_data;
  if (wc_flags & IBV_WC_EX_WITH_QP_NUM) cq.read_qp_num = &read_qp_num;
  if (wc_flags & IBV_WC_EX_WITH_SRC_QP) cq.read_src_qp = &read_src_qp;
  if (wc_flags & IBV_WC_EX_WITH_SLID) cq.read_slid = &read_slid;
  if (wc_flags & IBV_WC_EX_WITH_SL) cq.read_sl = &read_sl;
  if (wc_flags & IBV_WC_EX_WITH_DLID_PATH_BITS) cq.read_dlid_path_bits = &read_dlid_path_bits;
  if (wc_flags & IBV_WC_EX_WITH_COMPLETION_TIMESTAMP) cq.read_completion_ts = &read_timestamp;
  if (wc_flags & IBV_WC_EX_WITH_COMPLETION_TIMESTAMP_WALLCLOCK) {
    cq.read_completion_wallclock_ns = &read_wall_clock;
  }
}

}  // namespace isthmus::verbs
