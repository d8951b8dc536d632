#include "rdma/memory_channel.h"

#include <algorithm>
#include <cstring>

#include "os/event_fd.h"
#include "rdma/capture_message.h"
#include "rdma/engine_state.h"
#include "rdma/peer_window.h"
#include "rdma/queue_pair.h"
#include "wire/aeth.h"

namespace isthmus::rdma {
namespace {

constexpr std::uint32_t kEntriesPerRound = 64;
// How often a waiting requester looks whether its neighbour is still there.
constexpr std::uint64_t kLookNs = 50'000'000;

bool is_direct(ibv_wr_opcode opcode) {
  return opcode == IBV_WR_RDMA_WRITE || opcode == IBV_WR_RDMA_READ ||
         opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}

bool needs_receive(std::uint32_t opcode) {
  return opcode == IBV_WR_SEND || opcode == IBV_WR_SEND_WITH_IMM ||
         opcode == IBV_WR_SEND_WITH_INV || opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
}

}  // namespace

void notify(const PeerWindow& peer, std::uint32_t qp_index) {
  WindowHeader& header = peer.window().header;
  // seq_cst: these stores come before the load of `sleeping`. Partner: Engine::prepare_to_sleep,
  // which stores `sleeping` and then loads the summary.
  header.activity[qp_index / 64].fetch_or(std::uint64_t{1} << (qp_index % 64));
  header.activity_summary.fetch_or(std::uint64_t{1} << (qp_index / 64));
  if (header.sleeping.load() != 0 && header.sleeping.exchange(0) != 0) {
    os::signal(peer.doorbell_fd());
  }
}

Ring& MemoryChannel::own_ring() const {
  return qp_.engine().window->rings[index_of(qp_.qpn())];
}

Ring& MemoryChannel::peer_ring() const {
  return qp_.neighbour()->window().rings[index_of(qp_.attr().dest_qp_num)];
}

void MemoryChannel::start() {
  for (RingEntry& slot : own_ring()) {
    if (slot.state != static_cast<std::uint32_t>(RingState::kFree)) {
      slot.state = static_cast<std::uint32_t>(RingState::kFree);
    }
  }
}

// What has been executed stays in the ring: its sender may not have looked yet.
void MemoryChannel::reset() {
  posted_ = retired_ = served_ = waiting_since_ns_ = 0;
  number_ = qp_.send_queue.tail();
}

bool MemoryChannel::peer_ready() {
  const QpSlot& peer = qp_.neighbour()->window().queue_pairs[index_of(qp_.attr().dest_qp_num)];
  if (peer.qpn.load() != qp_.attr().dest_qp_num) return false;
  const std::uint32_t state = peer.state.load();
  if (state != IBV_QPS_RTR && state != IBV_QPS_RTS && state != IBV_QPS_SQD) return false;
  if (peer.dest_qpn != qp_.qpn()) return false;
  if (peer.serves_memory.load() == 0) {
    // It cannot reach our memory, or does not want to.
    qp_.want_channel(ChannelKind::kRoce);
    return false;
  }
  return true;
}

bool MemoryChannel::transmit(std::uint64_t now) {
  std::uint32_t budget = kEntriesPerRound;
  while (number_ != qp_.send_queue.tail() && budget-- > 0) {
    SendEntry& entry = qp_.send_queue.at(number_);
    if (entry.status != IBV_WC_SUCCESS || !start_entry(entry, now)) break;
    ++number_;
  }
  qp_.retire_sends();
  return number_ != qp_.send_queue.tail() && budget == 0;
}

// False: not now.
bool MemoryChannel::start_entry(SendEntry& entry, std::uint64_t now) {
  if (!qp_.may_start()) return false;
  if ((entry.flags & IBV_SEND_FENCE) && !idle()) return false;
  entry.packets = 0;
  if (entry.opcode == IBV_WR_BIND_MW || entry.opcode == IBV_WR_LOCAL_INV) {
    entry.started = entry.done = true;
    entry.status = qp_.execute_local(entry);
    return true;
  }
  if (!peer_ready()) {
    arm_wait(now);
    return false;
  }
  std::uint32_t flags = 0;
  if (entry.flags & IBV_SEND_SOLICITED) flags |= kRingSolicited;
  if (idle()) {
    waiting_since_ns_ = 0;
    if (is_direct(entry.opcode) && execute_directly(entry) == Direct::kDone) {
      entry.started = true;
      qp_.count_sent(1, entry.length);
      if (qp_.engine().capture && entry.opcode != IBV_WR_RDMA_WRITE_WITH_IMM) [[unlikely]] {
        capture_request(entry, number_);
      }
      if (entry.opcode != IBV_WR_RDMA_WRITE_WITH_IMM || entry.status != IBV_WC_SUCCESS) {
        entry.done = true;
        return true;
      }
      flags |= kRingPlaced;
    }
  }
  if (!post_to_ring(entry, flags)) return entry.done;
  arm_wait(now);
  return true;
}

int MemoryChannel::resolve_entry(const SendEntry& entry, std::uint64_t number,
                                 std::array<iovec, kMaxSge>& out) {
  if (entry.length == 0) return 0;
  if (entry.flags & IBV_SEND_INLINE) {
    out[0] = {qp_.send_queue.inline_bytes(number), entry.length};
    return 1;
  }
  const bool written = entry.opcode == IBV_WR_RDMA_READ;
  return resolve(qp_.engine().keys, qp_.pd_number(), qp_.send_queue.sges(number), 0,
                 entry.length, written, qp_.engine().null_memory(), out);
}

MemoryChannel::Direct MemoryChannel::execute_directly(SendEntry& entry) {
  if (entry.length == 0) return Direct::kDone;
  const bool is_read = entry.opcode == IBV_WR_RDMA_READ;
  const std::uint32_t right = is_read ? IBV_ACCESS_REMOTE_READ : IBV_ACCESS_REMOTE_WRITE;
  Window& window = qp_.neighbour()->window();
  const QpSlot& peer = window.queue_pairs[index_of(qp_.attr().dest_qp_num)];
  KeyValues values;
  if (!(peer.access & right) || !check_key(window.keys[entry.rkey >> 16],
                                           {.key = entry.rkey,
                                            .pd = peer.pd,
                                            .qpn = qp_.attr().dest_qp_num,
                                            .address = entry.remote_address,
                                            .length = entry.length,
                                            .access = right},
                                           values)) {
    return Direct::kRefused;
  }
  if (values.flags & kKeyIsNull) return Direct::kRefused;  // The owner knows how.
  if (values.shared_file != 0 && copy_shared(entry, values)) return Direct::kDone;
  std::array<iovec, kMaxSge> local;
  const int pieces = resolve_entry(entry, number_, local);
  if (pieces < 0) {
    entry.status = IBV_WC_LOC_PROT_ERR;
    return Direct::kDone;
  }
  // SAFETY: an address of the neighbour, used only by the kernel, which checks it.
  const iovec remote{reinterpret_cast<void*>(values.host_address), entry.length};
  const std::span<const iovec> list{local.data(), static_cast<std::size_t>(pieces)};
  const os::ProcessMemory& memory = qp_.neighbour()->memory();
  const std::ptrdiff_t moved =
      is_read ? memory.read(list, {&remote, 1}) : memory.write(list, {&remote, 1});
  // A region whose pages are gone, or a neighbour that is: the ring, and its timeout, tell which.
  return moved == static_cast<std::ptrdiff_t>(entry.length) ? Direct::kDone : Direct::kRefused;
}

// False: not in a file that we can map, or our own memory is not plain; then the kernel tries.
bool MemoryChannel::copy_shared(const SendEntry& entry, const KeyValues& values) {
  std::array<iovec, kMaxSge> local;
  std::size_t pieces = 1;
  if (entry.flags & IBV_SEND_INLINE) {
    local[0] = {qp_.send_queue.inline_bytes(number_), entry.length};
  } else {
    const int referred = refer(qp_.engine().keys, qp_.pd_number(), qp_.send_queue.sges(number_), 0,
                               entry.length, local);
    if (referred < 0) return false;
    pieces = static_cast<std::size_t>(referred);
  }
  std::byte* there = qp_.neighbour()->files().find(entry.rkey, values, entry.length);
  if (there == nullptr) return false;
  if (entry.opcode == IBV_WR_RDMA_READ) {
    // Here it is written to, for which refer() has not asked.
    if (resolve_entry(entry, number_, local) < 0) return false;
    copy_out({local.data(), pieces}, there);
  } else {
    copy_last_byte_last(there, {local.data(), pieces});
  }
  return true;
}

// False: the ring is full, or the entry failed and is done.
bool MemoryChannel::post_to_ring(SendEntry& entry, std::uint32_t flags) {
  if (posted_ - retired_ == kRingEntries) return false;
  RingEntry& slot = peer_ring()[posted_ % kRingEntries];
  const bool atomic = entry.is_atomic() || entry.opcode == IBV_WR_ATOMIC_WRITE;
  slot.request = {.opcode = entry.opcode,
                  .flags = flags,
                  .source_qpn = qp_.qpn(),
                  .dest_qpn = qp_.attr().dest_qp_num,
                  .immediate = entry.immediate,
                  .length = entry.length,
                  .remote_address = entry.remote_address,
                  .rkey = entry.rkey,
                  .segment_count = 0,
                  .compare_add = atomic ? entry.atomic.compare_add : 0,
                  .swap = atomic ? entry.atomic.swap : 0};
  if (!(flags & kRingPlaced) && !atomic && !fill_payload(entry, slot)) {
    entry.status = IBV_WC_LOC_PROT_ERR;
    entry.started = entry.done = true;
    return false;
  }
  if (!entry.started && entry.opcode != IBV_WR_RDMA_READ) qp_.count_sent(1, entry.length);
  entry.started = true;
  entry_of_[posted_ % kRingEntries] = number_;
  slot.status.store(0, std::memory_order_relaxed);
  // Release: the request above. Partner: serve().
  slot.state.store(static_cast<std::uint32_t>(RingState::kPosted), std::memory_order_release);
  ++posted_;
  notify(*qp_.neighbour(), index_of(qp_.attr().dest_qp_num));
  return true;
}

bool MemoryChannel::fill_payload(SendEntry& entry, RingEntry& slot) {
  if (entry.length <= kRingInlineBytes && entry.opcode != IBV_WR_RDMA_READ) {
    slot.request.flags |= kRingInline;
    if (entry.flags & IBV_SEND_INLINE) {
      std::memcpy(slot.bytes.data(), qp_.send_queue.inline_bytes(number_), entry.length);
      return true;
    }
    return gather(qp_.engine().keys, qp_.pd_number(), qp_.send_queue.sges(number_), 0,
                  {slot.bytes.data(), entry.length});
  }
  std::array<iovec, kMaxSge> local;
  const int pieces = resolve_entry(entry, number_, local);
  if (pieces < 0) return false;
  slot.request.segment_count = static_cast<std::uint32_t>(pieces);
  for (std::size_t i = 0; i < static_cast<std::size_t>(pieces); ++i) {
    // SAFETY: our own address, handed over as a number.
    slot.segments[i] = {reinterpret_cast<std::uint64_t>(local[i].iov_base), local[i].iov_len};
  }
  return true;
}

void MemoryChannel::retire(std::uint64_t now) {
  bool moved = false;
  while (retired_ != posted_) {
    RingEntry& slot = peer_ring()[retired_ % kRingEntries];
    // Acquire: the status, and what the target wrote into our memory. Partner: serve().
    if (slot.state.load(std::memory_order_acquire) !=
        static_cast<std::uint32_t>(RingState::kDone)) {
      break;
    }
    finish(qp_.send_queue.at(entry_of_[retired_ % kRingEntries]), slot);
    ++retired_;
    moved = true;
  }
  if (moved) {
    waiting_since_ns_ = 0;
    qp_.retire_sends();
    qp_.engine().schedule(qp_);
  }
  if (!idle() && qp_.sends()) {
    const RingEntry& slot = peer_ring()[retired_ % kRingEntries];
    const bool refused = slot.status.load(std::memory_order_relaxed) & kRingNotReady;
    if (refused && qp_.attr().rnr_retry == 0) fail_oldest(IBV_WC_RNR_RETRY_EXC_ERR);
  }
  if (!idle()) {
    arm_wait(now);
  } else if (moved) {
    qp_.arm_deadline(UINT64_MAX);
  }
}

void MemoryChannel::finish(SendEntry& entry, RingEntry& slot) {
  const std::uint32_t status = slot.status.load(std::memory_order_relaxed);
  const std::uint64_t original = slot.request.compare_add;
  slot.state.store(static_cast<std::uint32_t>(RingState::kFree), std::memory_order_release);
  entry.done = true;
  entry.status = status <= IBV_WC_GENERAL_ERR ? static_cast<ibv_wc_status>(status)
                                              : IBV_WC_REM_OP_ERR;
  if (entry.is_atomic() && entry.status == IBV_WC_SUCCESS) {
    const std::uint64_t number = entry_of_[retired_ % kRingEntries];
    if (!scatter(qp_.engine().keys, qp_.pd_number(), qp_.send_queue.sges(number), 0,
                 std::as_bytes(std::span{&original, 1}))) {
      entry.status = IBV_WC_LOC_PROT_ERR;
    }
  }
  if (qp_.engine().capture && entry.opcode != IBV_WR_ATOMIC_WRITE) [[unlikely]] {
    if (entry.is_atomic()) entry.atomic_original = original;
    capture_request(entry, entry_of_[retired_ % kRingEntries]);
  }
}

void MemoryChannel::arm_wait(std::uint64_t now) {
  if (waiting_since_ns_ == 0) waiting_since_ns_ = now;
  qp_.arm_deadline(now + kLookNs);
}

void MemoryChannel::fail_oldest(ibv_wc_status status) {
  cancel();
  if (qp_.send_queue.empty()) return;
  SendEntry& entry = qp_.send_queue.at(qp_.send_queue.head());
  entry.status = status;
  entry.done = true;
  qp_.retire_sends();
}

void MemoryChannel::on_deadline(std::uint64_t now) {
  if (waiting_since_ns_ == 0 || !qp_.sends()) return;
  retire(now);
  if (waiting_since_ns_ == 0) return;
  if (qp_.neighbour()->closed()) {
    fail_oldest(IBV_WC_RETRY_EXC_ERR);
    return;
  }
  const std::uint64_t waited = now - waiting_since_ns_;
  std::uint32_t status = 0;
  if (!idle()) status = peer_ring()[retired_ % kRingEntries].status.load();
  if (status & kRingNotReady) {
    const std::uint64_t timer = wire::rnr_timer_ns(static_cast<std::uint8_t>(status & 0x1f));
    if (qp_.attr().rnr_retry != 7 && waited > qp_.attr().rnr_retry * timer) {
      fail_oldest(IBV_WC_RNR_RETRY_EXC_ERR);
      return;
    }
  } else if (qp_.attr().timeout != 0) {
    if (waited > timeout_ns(qp_.attr().timeout) * (qp_.attr().retry_cnt + 1ull)) {
      fail_oldest(IBV_WC_RETRY_EXC_ERR);
      return;
    }
  }
  arm_wait(now);
  qp_.engine().schedule(qp_);
}

void MemoryChannel::cancel() {
  for (; retired_ != posted_; ++retired_) {
    std::uint32_t posted = static_cast<std::uint32_t>(RingState::kPosted);
    peer_ring()[retired_ % kRingEntries].state.compare_exchange_strong(
        posted, static_cast<std::uint32_t>(RingState::kCancelled));
  }
  waiting_since_ns_ = 0;
}

void MemoryChannel::serve(std::uint64_t) {
  if (!qp_.receives() || qp_.neighbour() == nullptr) return;
  for (std::uint32_t budget = kEntriesPerRound; budget > 0; --budget) {
    RingEntry& slot = own_ring()[served_ % kRingEntries];
    // Acquire: the request. Partner: post_to_ring().
    const auto state = static_cast<RingState>(slot.state.load(std::memory_order_acquire));
    if (state == RingState::kCancelled) {
      slot.state = static_cast<std::uint32_t>(RingState::kFree);
      ++served_;
      continue;
    }
    if (state != RingState::kPosted || !serve_entry(slot)) return;
    if (!qp_.receives()) return;
  }
  qp_.engine().note_activity(qp_);  // There may be more.
}

// False: it has to wait for a receive.
bool MemoryChannel::serve_entry(RingEntry& slot) {
  const RingRequest request = slot.request;  // Copied once; the copy is checked.
  const bool mine =
      request.dest_qpn == qp_.qpn() && request.source_qpn == qp_.attr().dest_qp_num;
  if (mine && needs_receive(request.opcode) && !qp_.can_receive()) {
    const std::uint32_t hint = kRingNotReady | qp_.attr().min_rnr_timer;
    if (slot.status.exchange(hint) != hint) {
      notify(*qp_.neighbour(), index_of(qp_.attr().dest_qp_num));
    }
    return false;
  }
  std::uint32_t posted = static_cast<std::uint32_t>(RingState::kPosted);
  if (!slot.state.compare_exchange_strong(posted, static_cast<std::uint32_t>(RingState::kTaken))) {
    return true;  // Cancelled just now; the next look passes over it.
  }
  const ibv_wc_status status = mine ? execute(slot, request) : IBV_WC_REM_INV_REQ_ERR;
  slot.status.store(status, std::memory_order_relaxed);
  // Release: the status, and what was written into the sender's memory. Partner: retire().
  slot.state.store(static_cast<std::uint32_t>(RingState::kDone), std::memory_order_release);
  ++served_;
  notify(*qp_.neighbour(), index_of(qp_.attr().dest_qp_num));
  if (mine && status != IBV_WC_SUCCESS) {
    qp_.enter_error(status == IBV_WC_REM_INV_REQ_ERR ? IBV_EVENT_QP_REQ_ERR
                                                     : IBV_EVENT_QP_ACCESS_ERR);
  }
  return true;
}

ibv_wc_status MemoryChannel::execute(RingEntry& slot, const RingRequest& request) {
  qp_.note_communication();
  qp_.count_received(1, request.opcode == IBV_WR_RDMA_READ ? 0 : request.length);
  if (request.segment_count > kRingSegments) return IBV_WC_REM_INV_REQ_ERR;
  if ((request.flags & kRingInline) && request.length > kRingInlineBytes) {
    return IBV_WC_REM_INV_REQ_ERR;
  }
  switch (request.opcode) {
    case IBV_WR_SEND:
    case IBV_WR_SEND_WITH_IMM:
    case IBV_WR_SEND_WITH_INV:
      return execute_send(slot, request);
    case IBV_WR_RDMA_WRITE:
    case IBV_WR_RDMA_WRITE_WITH_IMM:
      return execute_write(slot, request);
    case IBV_WR_RDMA_READ:
      return execute_read(slot, request);
    case IBV_WR_ATOMIC_CMP_AND_SWP:
    case IBV_WR_ATOMIC_FETCH_AND_ADD:
    case IBV_WR_ATOMIC_WRITE:
      return execute_atomic(slot, request);
    default:
      return IBV_WC_REM_INV_REQ_ERR;
  }
}

// Fetches the payload from the entry or from the sender's memory.
bool MemoryChannel::pull(const RingEntry& slot, const RingRequest& request,
                         std::span<const iovec> local) {
  if (request.flags & kRingInline) {
    std::size_t offset = 0;
    for (const iovec& piece : local) {
      if (offset + piece.iov_len > request.length) return false;
      std::memcpy(piece.iov_base, slot.bytes.data() + offset, piece.iov_len);
      offset += piece.iov_len;
    }
    return offset == request.length;
  }
  std::array<iovec, kRingSegments> remote;
  for (std::uint32_t i = 0; i < request.segment_count; ++i) {
    // SAFETY: an address of the sender, used only by the kernel, which checks it.
    remote[i] = {reinterpret_cast<void*>(slot.segments[i].address), slot.segments[i].bytes};
  }
  return qp_.neighbour()->memory().read(local, {remote.data(), request.segment_count}) ==
         static_cast<std::ptrdiff_t>(request.length);
}

void MemoryChannel::complete_receive(const Receive& receive, const RingRequest& request,
                                     ibv_wc_status status) {
  ibv_wc wc{};
  wc.status = status;
  wc.opcode =
      request.opcode == IBV_WR_RDMA_WRITE_WITH_IMM ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV;
  wc.byte_len = request.length;
  wc.src_qp = request.source_qpn;
  if (request.opcode == IBV_WR_SEND_WITH_IMM || request.opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
    wc.wc_flags = IBV_WC_WITH_IMM;
    wc.imm_data = request.immediate;
  } else if (request.opcode == IBV_WR_SEND_WITH_INV) {
    wc.wc_flags = IBV_WC_WITH_INV;
    wc.invalidated_rkey = request.immediate;
  }
  qp_.complete_receive(receive, wc, request.flags & kRingSolicited);
}

ibv_wc_status MemoryChannel::execute_send(const RingEntry& slot, const RingRequest& request) {
  Receive receive;
  if (!qp_.take_receive(receive)) return IBV_WC_REM_OP_ERR;
  if (request.length > receive.bytes) {
    complete_receive(receive, request, IBV_WC_LOC_LEN_ERR);
    return IBV_WC_REM_INV_REQ_ERR;
  }
  std::array<iovec, kMaxSge> local;
  const int pieces =
      resolve(qp_.engine().keys, qp_.pd_number(), receive.list(), 0, request.length, true,
              qp_.engine().null_memory(), local);
  if (pieces < 0) {
    complete_receive(receive, request, IBV_WC_LOC_PROT_ERR);
    return IBV_WC_REM_OP_ERR;
  }
  if (request.length > 0 &&
      !pull(slot, request, {local.data(), static_cast<std::size_t>(pieces)})) {
    // The sender's memory is not there: its fault, but the receive is spoilt.
    complete_receive(receive, request, IBV_WC_GENERAL_ERR);
    return IBV_WC_LOC_PROT_ERR;
  }
  if (request.opcode == IBV_WR_SEND_WITH_INV && !qp_.invalidate_by_peer(request.immediate)) {
    complete_receive(receive, request, IBV_WC_GENERAL_ERR);
    return IBV_WC_REM_ACCESS_ERR;
  }
  if (qp_.engine().capture) [[unlikely]] {
    capture_arrival(request, {local.data(), static_cast<std::size_t>(pieces)});
  }
  complete_receive(receive, request, IBV_WC_SUCCESS);
  return IBV_WC_SUCCESS;
}

ibv_wc_status MemoryChannel::execute_write(const RingEntry& slot, const RingRequest& request) {
  if (request.length > 0 && !(request.flags & kRingPlaced)) {
    if (!(qp_.access() & IBV_ACCESS_REMOTE_WRITE)) return IBV_WC_REM_INV_REQ_ERR;
    KeyValues values;
    if (!qp_.engine().keys.check({.key = request.rkey,
                                  .pd = qp_.pd_number(),
                                  .qpn = qp_.qpn(),
                                  .address = request.remote_address,
                                  .length = request.length,
                                  .access = IBV_ACCESS_REMOTE_WRITE},
                                 values)) {
      return IBV_WC_REM_ACCESS_ERR;
    }
    // SAFETY: inside a region the program registered for remote writes and still owns.
    const iovec local{reinterpret_cast<void*>(values.host_address), request.length};
    if (!(values.flags & kKeyIsNull) && !pull(slot, request, {&local, 1})) {
      return IBV_WC_LOC_PROT_ERR;
    }
  }
  if (request.opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
    Receive receive;
    if (!qp_.take_receive(receive)) return IBV_WC_REM_OP_ERR;
    complete_receive(receive, request, IBV_WC_SUCCESS);
  }
  return IBV_WC_SUCCESS;
}

ibv_wc_status MemoryChannel::execute_read(const RingEntry& slot, const RingRequest& request) {
  if (request.length == 0) return IBV_WC_SUCCESS;
  if (!(qp_.access() & IBV_ACCESS_REMOTE_READ)) return IBV_WC_REM_INV_REQ_ERR;
  KeyValues values;
  if (!qp_.engine().keys.check({.key = request.rkey,
                                .pd = qp_.pd_number(),
                                .qpn = qp_.qpn(),
                                .address = request.remote_address,
                                .length = request.length,
                                .access = IBV_ACCESS_REMOTE_READ},
                               values)) {
    return IBV_WC_REM_ACCESS_ERR;
  }
  std::byte* source = values.flags & kKeyIsNull
                          ? qp_.engine().null_memory()
                          // SAFETY: inside a region registered for remote reads.
                          : reinterpret_cast<std::byte*>(values.host_address);
  if ((values.flags & kKeyIsNull) && request.length > kNullScratchBytes) {
    return IBV_WC_REM_ACCESS_ERR;
  }
  if (values.flags & kKeyIsNull) std::memset(source, 0, request.length);
  const iovec local{source, request.length};
  std::array<iovec, kRingSegments> remote;
  for (std::uint32_t i = 0; i < request.segment_count; ++i) {
    // SAFETY: an address of the sender, used only by the kernel, which checks it.
    remote[i] = {reinterpret_cast<void*>(slot.segments[i].address), slot.segments[i].bytes};
  }
  const std::ptrdiff_t moved = qp_.neighbour()->memory().write(
      {&local, 1}, {remote.data(), request.segment_count});
  qp_.count_sent(0, request.length);
  return moved == static_cast<std::ptrdiff_t>(request.length) ? IBV_WC_SUCCESS
                                                              : IBV_WC_LOC_PROT_ERR;
}

ibv_wc_status MemoryChannel::execute_atomic(RingEntry& slot, const RingRequest& request) {
  const bool write = request.opcode == IBV_WR_ATOMIC_WRITE;
  const std::uint32_t right = write ? IBV_ACCESS_REMOTE_WRITE : IBV_ACCESS_REMOTE_ATOMIC;
  if (!(qp_.access() & right) || request.remote_address % 8 != 0) return IBV_WC_REM_INV_REQ_ERR;
  KeyValues values;
  if (!qp_.engine().keys.check({.key = request.rkey,
                                .pd = qp_.pd_number(),
                                .qpn = qp_.qpn(),
                                .address = request.remote_address,
                                .length = 8,
                                .access = right},
                               values) ||
      values.host_address % 8 != 0) {
    return IBV_WC_REM_ACCESS_ERR;
  }
  if (write) {
    store_atomic(values.host_address, request.compare_add);
  } else {
    slot.request.compare_add =
        apply_atomic(values.host_address, request.opcode == IBV_WR_ATOMIC_CMP_AND_SWP,
                     request.compare_add, request.swap);
  }
  return IBV_WC_SUCCESS;
}

void MemoryChannel::capture_request(const SendEntry& entry, std::uint64_t number) {
  std::array<iovec, kMaxSge> local;
  const int pieces = entry.is_atomic() ? 0 : resolve_entry(entry, number, local);
  if (pieces < 0) return;
  capture_message(qp_, CaptureDirection::kOutgoing,
                  {.opcode = entry.opcode,
                   .psn = captured_psn_,
                   .length = entry.length,
                   .immediate = entry.immediate,
                   .remote_address = entry.remote_address,
                   .rkey = entry.rkey,
                   .compare_add = entry.is_atomic() ? entry.atomic.compare_add : 0,
                   .swap = entry.is_atomic() ? entry.atomic.swap : 0,
                   .original = entry.is_atomic() ? entry.atomic_original : 0,
                   .payload = {local.data(), static_cast<std::size_t>(pieces)}});
}

void MemoryChannel::capture_arrival(const RingRequest& request, std::span<const iovec> payload) {
  capture_message(qp_, CaptureDirection::kIncoming,
                  {.opcode = static_cast<ibv_wr_opcode>(request.opcode),
                   .psn = captured_arrival_psn_,
                   .length = request.length,
                   .immediate = request.immediate,
                   .payload = payload});
}

}  // namespace isthmus::rdma
