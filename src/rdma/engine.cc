// The objects of an engine: what creates them, within the limits that are advertised.
#include "rdma/engine.h"

#include <algorithm>

#include "base/assert.h"
#include "rdma/completion_queue.h"
#include "rdma/engine_state.h"
#include "rdma/memory_region.h"
#include "rdma/queue_pair.h"
#include "rdma/shared_receive_queue.h"

namespace isthmus::rdma {
namespace {

constexpr unsigned kRemoteWrites = IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC;

Result<void> check_memory(const MemorySpec& spec) {
  if ((spec.access & kRemoteWrites) && !(spec.access & IBV_ACCESS_LOCAL_WRITE)) {
    return fail(ErrorCode::kInvalid, "remote write or atomic access needs local write access");
  }
  const std::uint64_t end = UINT64_MAX - spec.length;
  // SAFETY: only compared.
  const bool wraps = reinterpret_cast<std::uint64_t>(spec.address) > end || spec.iova > end;
  // Implicit on-demand registration covers all addresses and is the one that reaches the end.
  if (wraps && !(spec.access & IBV_ACCESS_ON_DEMAND)) {
    return fail(ErrorCode::kInvalid, "the region reaches beyond the end of addresses");
  }
  return {};
}

KeyValues values_of(const ProtectionDomain& pd, const MemorySpec& spec) {
  return {.pd = pd.number(),
          .access = spec.access,
          .iova = spec.iova,
          .length = spec.length,
          // SAFETY: an address the program handed over, kept as a number.
          .host_address = reinterpret_cast<std::uint64_t>(spec.address),
          .flags = spec.access & IBV_ACCESS_ON_DEMAND ? std::uint32_t{kKeyIsOnDemand} : 0,
          .shared_file = spec.shared_file,
          .shared_offset = spec.shared_offset};
}

std::uint32_t next_qpn(EngineState& state, std::uint32_t index) {
  const std::uint32_t generation = state.generations[index]++ & ((1u << kQpGenerationBits) - 1);
  const std::uint32_t qpn =
      state.options.function << kFunctionShift | generation << kQpIndexBits | index;
  return qpn != kMulticastQpn ? qpn : next_qpn(state, index);
}

}  // namespace

Engine::Engine(EngineOptions options, PacketPort& port, EngineListener& listener)
    : state_(std::make_unique<EngineState>(std::move(options), port, listener)) {}

Engine::~Engine() = default;

Result<std::unique_ptr<ProtectionDomain>> Engine::create_pd() {
  ++state_->pd_count;
  return std::make_unique<ProtectionDomain>(*state_, state_->next_number++);
}

Result<std::unique_ptr<XrcDomain>> Engine::create_xrcd() {
  return std::make_unique<XrcDomain>(state_->next_number++);
}

Result<std::unique_ptr<MemoryRegion>> Engine::create_mr(ProtectionDomain& pd,
                                                        const MemorySpec& spec) {
  ISTHMUS_TRY_VOID(check_memory(spec));
  const std::uint32_t key = ISTHMUS_TRY(state_->keys.add(values_of(pd, spec)));
  return std::make_unique<MemoryRegion>(*state_, pd, spec, key);
}

Result<std::unique_ptr<MemoryRegion>> Engine::create_null_mr(ProtectionDomain& pd) {
  const MemorySpec spec{.access = IBV_ACCESS_LOCAL_WRITE};
  KeyValues values = values_of(pd, spec);
  values.flags = kKeyIsNull;
  const std::uint32_t key = ISTHMUS_TRY(state_->keys.add(values));
  return std::make_unique<MemoryRegion>(*state_, pd, spec, key);
}

Result<void> Engine::reregister_mr(MemoryRegion& mr, int flags, ProtectionDomain* pd,
                                   const MemorySpec& spec) {
  MemorySpec next = mr.spec_;
  if (flags & IBV_REREG_MR_CHANGE_TRANSLATION) {
    next.address = spec.address;
    next.length = spec.length;
    next.iova = spec.iova;
  }
  if (flags & IBV_REREG_MR_CHANGE_ACCESS) next.access = spec.access;
  ISTHMUS_TRY_VOID(check_memory(next));
  if ((flags & IBV_REREG_MR_CHANGE_PD) && pd) {
    --mr.pd_->in_use;
    mr.pd_ = pd;
    ++mr.pd_->in_use;
  }
  state_->window->header.registered_bytes += next.length - mr.spec_.length;
  mr.spec_ = next;
  state_->keys.replace(mr.key_, values_of(*mr.pd_, next));
  return {};
}

Result<std::unique_ptr<MemoryWindow>> Engine::create_mw(ProtectionDomain& pd, ibv_mw_type type) {
  KeyValues values{.pd = pd.number(), .flags = kKeyIsWindow};
  if (type == IBV_MW_TYPE_2) values.flags |= kKeyIsWindowType2;
  const std::uint32_t key = ISTHMUS_TRY(state_->keys.add(values));
  return std::make_unique<MemoryWindow>(*state_, pd, type, key);
}

Result<std::unique_ptr<CompletionQueue>> Engine::create_cq(int entries) {
  if (entries < 1 || static_cast<std::uint32_t>(entries) > kMaxCqEntries) {
    return fail(ErrorCode::kInvalid, "a completion queue has 1 to %u entries, not %d",
                kMaxCqEntries, entries);
  }
  return std::make_unique<CompletionQueue>(*state_, static_cast<std::uint32_t>(entries));
}

Result<void> Engine::resize_cq(CompletionQueue& cq, int entries) {
  if (entries < 1 || static_cast<std::uint32_t>(entries) > kMaxCqEntries ||
      !cq.resize(static_cast<std::uint32_t>(entries))) {
    return fail(ErrorCode::kInvalid, "cannot resize a queue with %u completions to %d", cq.size(),
                entries);
  }
  return {};
}

Result<std::unique_ptr<SharedReceiveQueue>> Engine::create_srq(
    const SharedReceiveQueueSpec& spec) {
  SharedReceiveQueueSpec given = spec;
  if (spec.attr.max_wr > kMaxWorkRequests || spec.attr.max_sge > kMaxSge ||
      spec.attr.max_wr == 0) {
    return fail(ErrorCode::kInvalid,
                "a shared receive queue has 1 to %u requests of up to %u pieces",
                kMaxWorkRequests, kMaxSge);
  }
  if (state_->srqs.size() >= kMaxSharedReceiveQueues) {
    return fail(ErrorCode::kNoMemory, "all %u shared receive queues are in use",
                kMaxSharedReceiveQueues);
  }
  given.attr.max_sge = std::max(1u, spec.attr.max_sge);
  return std::make_unique<SharedReceiveQueue>(*state_, given, state_->next_number++ & 0xff'ffff);
}

Result<void> Engine::modify_srq(SharedReceiveQueue& srq, const ibv_srq_attr& attr, int mask) {
  if (mask & IBV_SRQ_MAX_WR) {
    if (attr.max_wr == 0 || attr.max_wr > kMaxWorkRequests || !srq.queue.resize(attr.max_wr)) {
      return fail(ErrorCode::kInvalid, "cannot resize a queue with %u requests to %u",
                  srq.queue.size(), attr.max_wr);
    }
  }
  if (mask & IBV_SRQ_LIMIT) {
    if (attr.srq_limit > srq.queue.max_requests()) {
      return fail(ErrorCode::kInvalid, "limit %u is beyond the queue's %u requests",
                  attr.srq_limit, srq.queue.max_requests());
    }
    srq.set_limit(attr.srq_limit);
  }
  return {};
}

Result<std::unique_ptr<QueuePair>> Engine::create_qp(const QueuePairSpec& spec) {
  const ibv_qp_cap& cap = spec.cap;
  if (cap.max_send_wr > kMaxWorkRequests || cap.max_recv_wr > kMaxWorkRequests ||
      cap.max_send_sge > kMaxSge || cap.max_recv_sge > kMaxSge ||
      cap.max_inline_data > kMaxInlineBytes) {
    return fail(ErrorCode::kInvalid,
                "beyond the device: at most %u requests, %u pieces, %u inline bytes",
                kMaxWorkRequests, kMaxSge, kMaxInlineBytes);
  }
  if (spec.type == IBV_QPT_RAW_PACKET && !state_->raw_packets) {
    if (!state_->options.open_frame_port) {
      return fail(ErrorCode::kUnsupported, "this device has no Ethernet interface");
    }
    state_->raw_packets =
        std::make_unique<RawPackets>(*state_, ISTHMUS_TRY(state_->options.open_frame_port()));
  }
  QueuePairSpec given = spec;
  given.cap.max_send_sge = std::max(1u, cap.max_send_sge);
  // As soft-RoCE: what the list of pieces would take is there for inline data, asked or not, and
  // rdma_xclient counts on it.
  given.cap.max_inline_data =
      std::max(cap.max_inline_data,
               std::min<std::uint32_t>(kMaxInlineBytes, given.cap.max_send_sge * sizeof(ibv_sge)));
  if (!spec.srq) given.cap.max_recv_sge = std::max(1u, cap.max_recv_sge);
  if (spec.type == IBV_QPT_XRC_RECV) given.cap = {};
  for (std::uint32_t i = 0; i < kMaxQueuePairs; ++i) {
    const std::uint32_t index = (state_->next_index + i) % kMaxQueuePairs;
    if (state_->queue_pairs[index]) continue;
    state_->next_index = index + 1;
    const std::uint32_t qpn = next_qpn(*state_, index);
    if (spec.type == IBV_QPT_UD) state_->port.ask_for_hops();
    return std::make_unique<QueuePair>(*state_, given, qpn);
  }
  return fail(ErrorCode::kNoMemory, "all %u queue pairs are in use", kMaxQueuePairs);
}

Result<void> Engine::modify_qp(QueuePair& qp, const ibv_qp_attr& attr, int mask,
                               const Admission* admission) {
  ISTHMUS_TRY_VOID(qp.modify(attr, mask, admission));
  state_->run_active();
  state_->burst.flush();
  return {};
}

void Engine::query_qp(const QueuePair& qp, ibv_qp_attr& attr, ibv_qp_init_attr& init) const {
  qp.query(attr, init);
}

Result<void> Engine::attach_multicast(QueuePair& qp, const Gid& group) {
  if (!qp.is_datagram()) return fail(ErrorCode::kInvalid, "multicast is for UD queue pairs");
  auto& members = state_->multicast[group];
  if (std::ranges::find(members, &qp) != members.end()) return {};
  const wire::IpAddress address{group};
  if (members.empty() && !state_->port.join(address)) {
    state_->multicast.erase(group);
    return fail(ErrorCode::kInvalid, "the kernel does not join group %s",
                address.to_string().c_str());
  }
  members.push_back(&qp);
  ++qp.in_use;
  return {};
}

Result<void> Engine::detach_multicast(QueuePair& qp, const Gid& group) {
  const auto found = state_->multicast.find(group);
  if (found == state_->multicast.end() || std::erase(found->second, &qp) == 0) {
    return fail(ErrorCode::kInvalid, "the queue pair is not in that group");
  }
  --qp.in_use;
  if (found->second.empty()) {
    state_->port.leave(wire::IpAddress{group});
    state_->multicast.erase(found);
  }
  return {};
}

Result<std::uint32_t> Engine::attach_flow(QueuePair& qp, const FlowRule& rule) {
  if (!qp.is_raw_packet()) {
    return fail(ErrorCode::kUnsupported, "flow rules are for raw packet queue pairs");
  }
  return state_->raw_packets->attach(qp, rule);
}

void Engine::detach_flow(std::uint32_t number) { state_->raw_packets->detach(number); }

void Engine::revoke(std::uint32_t qpn) {
  if (QueuePair* qp = find_qp(qpn)) qp->enter_error(IBV_EVENT_QP_FATAL);
}

void Engine::restrict_access(std::uint32_t qpn, std::uint32_t allowed_access) {
  if (QueuePair* qp = find_qp(qpn)) qp->set_allowed_access(allowed_access);
}

Result<void> Engine::switch_channel(std::uint32_t qpn, ChannelKind kind) {
  QueuePair* qp = find_qp(qpn);
  if (qp == nullptr) return fail(ErrorCode::kNotFound, "no queue pair 0x%06x", qpn);
  if (qp->type() != IBV_QPT_RC || (kind == ChannelKind::kMemory && !qp->neighbour())) {
    return fail(ErrorCode::kInvalid, "queue pair 0x%06x has only the RoCE channel", qpn);
  }
  qp->want_channel(kind);
  progress();
  return {};
}

void Engine::set_capture(std::unique_ptr<CaptureRing> ring) {
  state_->burst.set_capture(ring.get());
  state_->capture = std::move(ring);
}

void Engine::set_gids(std::vector<wire::IpAddress> gids) {
  state_->options.gids = std::move(gids);
}

std::span<const wire::IpAddress> Engine::gids() const { return state_->options.gids; }

QueuePair* Engine::find_qp(std::uint32_t qpn) { return state_->find(qpn); }

}  // namespace isthmus::rdma
