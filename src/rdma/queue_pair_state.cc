// The states of a queue pair: which changes are allowed, what each needs, what each does.
//
// Spec: InfiniBand Architecture vol. 1, 10.3.1, and 11.2.5.2 for the attributes of each change.
#include <array>

#include "rdma/engine_state.h"
#include "rdma/peer_window.h"
#include "rdma/queue_pair.h"

namespace isthmus::rdma {
namespace {

// Attributes that INIT, RTR and RTS need when they are entered from the state before.
struct Needs {
  int init;
  int rtr;
  int rts;
};

Needs needs_of(ibv_qp_type type) {
  const int init = IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
  const int rtr = IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN;
  const int rtr_target = rtr | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
  const int rts = IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                  IBV_QP_MAX_QP_RD_ATOMIC;
  switch (type) {
    case IBV_QPT_RC:
      return {init, rtr_target, rts};
    case IBV_QPT_UC:
      return {init, rtr, IBV_QP_SQ_PSN};
    case IBV_QPT_UD:
      return {IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY, 0, IBV_QP_SQ_PSN};
    case IBV_QPT_RAW_PACKET:
      return {IBV_QP_PORT, 0, 0};
    case IBV_QPT_XRC_SEND:
      return {init, rtr, rts};
    default:
      return {init, rtr_target, IBV_QP_TIMEOUT | IBV_QP_SQ_PSN};
  }
}

bool is_allowed(ibv_qp_state from, ibv_qp_state to, bool reliable) {
  switch (to) {
    case IBV_QPS_RESET:
    case IBV_QPS_ERR:
      return true;
    case IBV_QPS_INIT:
      return from == IBV_QPS_RESET || from == IBV_QPS_INIT;
    case IBV_QPS_RTR:
      return from == IBV_QPS_INIT;
    case IBV_QPS_RTS:
      return from == IBV_QPS_RTR || from == IBV_QPS_RTS || from == IBV_QPS_SQD ||
             (from == IBV_QPS_SQE && !reliable);
    case IBV_QPS_SQD:
      return from == IBV_QPS_RTS || from == IBV_QPS_SQD;
    default:
      return false;
  }
}

const char* name_of(ibv_qp_state state) {
  constexpr std::array kNames{"RESET", "INIT", "RTR", "RTS", "SQD", "SQE", "ERR"};
  const auto index = static_cast<std::size_t>(state);
  return index < kNames.size() ? kNames[index] : "unknown";
}

std::uint32_t bytes_of(ibv_mtu mtu) { return 128u << mtu; }  // IBV_MTU_256 is 1.

}  // namespace

Result<Path> QueuePair::find_path(const ibv_ah_attr& attr) const {
  const auto gids = engine_.options.gids;
  if (!attr.is_global) return fail(ErrorCode::kInvalid, "RoCE needs a GRH: set is_global");
  if (attr.grh.sgid_index >= gids.size()) {
    return fail(ErrorCode::kInvalid, "no GID with index %u", attr.grh.sgid_index);
  }
  const wire::IpAddress destination = wire::IpAddress::from_bytes(
      std::as_bytes(std::span<const std::uint8_t, 16>{attr.grh.dgid.raw}));
  const wire::IpAddress source = gids[attr.grh.sgid_index];
  if (destination.is_zero() || destination.is_v4() != source.is_v4()) {
    return fail(ErrorCode::kInvalid, "GID %s does not reach %s: not the same IP version",
                source.to_string().c_str(), destination.to_string().c_str());
  }
  return Path{source, destination};
}

Result<void> QueuePair::check_change(const ibv_qp_attr& attr, int mask, ibv_qp_state to) const {
  if ((mask & IBV_QP_CUR_STATE) && attr.cur_qp_state != state_) {
    return fail(ErrorCode::kInvalid, "the queue pair is in %s, not in %s", name_of(state_),
                name_of(attr.cur_qp_state));
  }
  if (!is_allowed(state_, to, is_reliable())) {
    return fail(ErrorCode::kInvalid, "no change from %s to %s", name_of(state_), name_of(to));
  }
  const Needs needs = needs_of(spec_.type);
  int needed = 0;
  if (state_ == IBV_QPS_RESET && to == IBV_QPS_INIT) needed = needs.init;
  if (state_ == IBV_QPS_INIT && to == IBV_QPS_RTR) needed = needs.rtr;
  if (state_ == IBV_QPS_RTR && to == IBV_QPS_RTS) needed = needs.rts;
  if ((mask & needed) != needed) {
    return fail(ErrorCode::kInvalid, "the change from %s to %s lacks attributes (mask 0x%x)",
                name_of(state_), name_of(to), needed & ~mask);
  }
  const bool bad = ((mask & IBV_QP_PORT) && attr.port_num != 1) ||
                   ((mask & IBV_QP_PKEY_INDEX) && attr.pkey_index != 0) ||
                   ((mask & IBV_QP_PATH_MTU) &&
                    (attr.path_mtu < IBV_MTU_256 || attr.path_mtu > IBV_MTU_4096)) ||
                   ((mask & IBV_QP_TIMEOUT) && attr.timeout > 31) ||
                   ((mask & IBV_QP_RETRY_CNT) && attr.retry_cnt > 7) ||
                   ((mask & IBV_QP_RNR_RETRY) && attr.rnr_retry > 7) ||
                   ((mask & IBV_QP_MIN_RNR_TIMER) && attr.min_rnr_timer > 31) ||
                   ((mask & IBV_QP_MAX_QP_RD_ATOMIC) && attr.max_rd_atomic > kMaxReadAtomic) ||
                   ((mask & IBV_QP_MAX_DEST_RD_ATOMIC) &&
                    attr.max_dest_rd_atomic > kMaxReadAtomic);
  if (bad) return fail(ErrorCode::kInvalid, "an attribute is out of range (mask 0x%x)", mask);
  return {};
}

Result<void> QueuePair::modify(const ibv_qp_attr& attr, int mask, const Admission* admission) {
  const ibv_qp_state to = mask & IBV_QP_STATE ? attr.qp_state : state_;
  if (mask & IBV_QP_STATE) {
    ISTHMUS_TRY_VOID(check_change(attr, mask, to));
  } else if (state_ == IBV_QPS_RESET) {
    return fail(ErrorCode::kInvalid, "nothing can be changed in RESET");
  }
  if (mask & IBV_QP_AV) path_ = ISTHMUS_TRY(find_path(attr.ah_attr));
  apply_attributes(attr, mask);
  if (mask & IBV_QP_STATE) enter_state(to, admission);
  publish();
  return {};
}

void QueuePair::apply_attributes(const ibv_qp_attr& attr, int mask) {
  if (mask & IBV_QP_ACCESS_FLAGS) attr_.qp_access_flags = attr.qp_access_flags;
  if (mask & IBV_QP_PKEY_INDEX) attr_.pkey_index = attr.pkey_index;
  if (mask & IBV_QP_PORT) attr_.port_num = attr.port_num;
  if (mask & IBV_QP_QKEY) attr_.qkey = attr.qkey;
  if (mask & IBV_QP_AV) attr_.ah_attr = attr.ah_attr;
  if (mask & IBV_QP_PATH_MTU) {
    attr_.path_mtu = attr.path_mtu;
    mtu_bytes_ = bytes_of(attr.path_mtu);
  }
  if (mask & IBV_QP_TIMEOUT) attr_.timeout = attr.timeout;
  if (mask & IBV_QP_RETRY_CNT) attr_.retry_cnt = attr.retry_cnt;
  if (mask & IBV_QP_RNR_RETRY) attr_.rnr_retry = attr.rnr_retry;
  if (mask & IBV_QP_RQ_PSN) attr_.rq_psn = attr.rq_psn;
  if (mask & IBV_QP_SQ_PSN) attr_.sq_psn = attr.sq_psn;
  if (mask & IBV_QP_MAX_QP_RD_ATOMIC) attr_.max_rd_atomic = attr.max_rd_atomic;
  if (mask & IBV_QP_MAX_DEST_RD_ATOMIC) attr_.max_dest_rd_atomic = attr.max_dest_rd_atomic;
  if (mask & IBV_QP_MIN_RNR_TIMER) attr_.min_rnr_timer = attr.min_rnr_timer;
  if (mask & IBV_QP_DEST_QPN) attr_.dest_qp_num = attr.dest_qp_num;
  if (mask & IBV_QP_PATH_MIG_STATE) attr_.path_mig_state = attr.path_mig_state;
  if (mask & IBV_QP_EN_SQD_ASYNC_NOTIFY) drain_event_wanted_ = attr.en_sqd_async_notify;
  if (mask & IBV_QP_RATE_LIMIT) attr_.rate_limit = attr.rate_limit;
}

void QueuePair::enter_state(ibv_qp_state to, const Admission* admission) {
  const ibv_qp_state from = state_;
  switch (to) {
    case IBV_QPS_RESET:
      send_owed_answers();
      reset();
      return;
    case IBV_QPS_ERR:
      send_owed_answers();
      enter_error();
      return;
    case IBV_QPS_RTR:
      state_ = to;
      enter_rtr(admission);
      return;
    case IBV_QPS_RTS:
      state_ = to;
      if (from == IBV_QPS_RTR) {
        requester.start(Psn{attr_.sq_psn});
        memory.skip_to(send_queue.head());
        channel_ = wanted_channel_;
      } else if (from == IBV_QPS_SQE) {
        requester.skip_to(send_queue.tail());
      }
      engine_.schedule(*this);
      return;
    case IBV_QPS_SQD:
      state_ = to;
      engine_.schedule(*this);
      return;
    default:
      state_ = to;
      return;
  }
}

void QueuePair::enter_rtr(const Admission* admission) {
  responder.start(Psn{attr_.rq_psn});
  communicated_ = false;
  if (is_datagram()) mtu_bytes_ = engine_.options.datagram_bytes;
  if (admission) {
    allowed_access_ = admission->allowed_access;
    if (spec_.type == IBV_QPT_RC) neighbour_ = admission->neighbour;
  }
  if (neighbour_) memory.start();
  wanted_channel_ = channel_ = neighbour_ ? ChannelKind::kMemory : ChannelKind::kRoce;
  count_port_user();
  publish();
  // A neighbour that is ready earlier waits for us.
  if (neighbour_) {
    notify(*neighbour_, index_of(attr_.dest_qp_num));
    engine_.note_activity(*this);
  }
}

void QueuePair::count_port_user() {
  const bool uses = receives() && neighbour_ == nullptr;
  if (uses == is_port_user_) return;
  is_port_user_ = uses;
  engine_.port_users += uses ? 1 : -1;
}

void QueuePair::reset() {
  state_ = IBV_QPS_RESET;
  publish();
  if (neighbour_) memory.cancel();
  send_queue.clear();
  for (Receive receive; receive_queue_.take(receive);) {
  }
  requester.reset();
  responder.reset();
  memory.reset();
  arm_deadline(UINT64_MAX);
  purge_completions();
  neighbour_.reset();
  channel_ = wanted_channel_ = ChannelKind::kRoce;
  allowed_access_ = ~0u;
  attr_ = {};
  path_ = {};
  count_port_user();
  publish();
}

void QueuePair::set_allowed_access(std::uint32_t access) {
  allowed_access_ = access;
  publish();
}

void QueuePair::publish() {
  slot_->state = static_cast<std::uint32_t>(state_);
  slot_->access = access();
  slot_->dest_qpn = attr_.dest_qp_num;
  slot_->local_gid = path_.source.bytes();
  slot_->remote_gid = path_.destination.bytes();
  slot_->channel = static_cast<std::uint32_t>(channel_);
  slot_->serves_memory = neighbour_ ? 1 : 0;
}

void QueuePair::query(ibv_qp_attr& attr, ibv_qp_init_attr& init) const {
  attr = attr_;
  attr.qp_state = attr.cur_qp_state = state_;
  attr.cap = spec_.cap;
  attr.rq_psn = responder.expected().raw();
  attr.sq_psn = requester.next_psn().raw();
  attr.sq_draining = state_ == IBV_QPS_SQD && !(requester.idle() && memory.idle());
  init.cap = spec_.cap;
  init.qp_type = spec_.type;
  init.sq_sig_all = spec_.signal_all;
}

}  // namespace isthmus::rdma
