#include "rdma/requester.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "rdma/engine_state.h"
#include "rdma/queue_pair.h"
#include "wire/aeth.h"
#include "wire/byte_order.h"

namespace isthmus::rdma {
namespace {

using wire::Opcode;

// What a packet takes of a receiver's socket buffer beside its payload: headers, and the kernel's
// bookkeeping of a short one.
constexpr std::uint64_t kPacketCharge = 512;
// A socket may ask for net.core.rmem_max, 208 KiB by default, and gets the double for payload and
// bookkeeping. Linux charges about 1.3 bytes for each one of a long run, so 256 KiB under way fit.
constexpr std::uint64_t kStartWindow = 128 * 1024;
constexpr std::uint64_t kMaxWindow = 256 * 1024;
constexpr std::uint64_t kReadPieceBytes = 64 * 1024;
// Responses to READs come into our own socket, from all peers together.
constexpr std::uint64_t kReadWindow = 256 * 1024;
// Nobody says what became of an unreliable packet, so no more than this many bytes leave at once,
// and one each nanosecond: a receiver that polls keeps up with 1 GB/s.
constexpr std::uint64_t kUnpacedBytes = 128 * 1024;
constexpr std::uint32_t kPacketsPerRound = 128;
constexpr std::uint32_t kPacketsPerAckRequest = 16;
// A second complaint about the same loss within this time comes from the same burst.
constexpr std::uint64_t kSameLossNs = 500'000;

// Well inside the half circle; one message alone may take more: 2^31 bytes at 256 a packet.
constexpr std::uint32_t kMaxPsnsUnderWay = Psn::kHalfCircle / 2;

// The opcode of packet `first`/`last` of a SEND or WRITE.
Opcode data_opcode(const QueuePair& qp, const SendEntry& entry, bool first, bool last) {
  const bool is_write =
      entry.opcode == IBV_WR_RDMA_WRITE || entry.opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
  const bool immediate =
      entry.opcode == IBV_WR_SEND_WITH_IMM || entry.opcode == IBV_WR_RDMA_WRITE_WITH_IMM;
  auto base = static_cast<std::uint8_t>(wire::OpcodeBase::kRc);
  if (qp.type() == IBV_QPT_UC) base = static_cast<std::uint8_t>(wire::OpcodeBase::kUc);
  if (qp.type() == IBV_QPT_XRC_SEND) base = static_cast<std::uint8_t>(wire::OpcodeBase::kXrc);
  if (last && entry.opcode == IBV_WR_SEND_WITH_INV) {
    const Opcode rc = first ? Opcode::kRcSendOnlyInvalidate : Opcode::kRcSendLastInvalidate;
    return static_cast<Opcode>(base | static_cast<std::uint8_t>(rc));
  }
  // SEND First is 0, WRITE First is 6; then Middle, Last, LastImm, Only, OnlyImm.
  std::uint8_t operation = is_write ? 6 : 0;
  if (first && last) {
    operation += immediate ? 5 : 4;
  } else if (last) {
    operation += immediate ? 3 : 2;
  } else if (!first) {
    operation += 1;
  }
  return static_cast<Opcode>(base | operation);
}

Opcode service_opcode(const QueuePair& qp, Opcode rc) {
  const bool xrc = qp.type() == IBV_QPT_XRC_SEND;
  return static_cast<Opcode>(static_cast<std::uint8_t>(rc) |
                             (xrc ? static_cast<std::uint8_t>(wire::OpcodeBase::kXrc) : 0));
}

}  // namespace

void Requester::start(Psn first) {
  reset();
  next_ = unacked_ = never_sent_ = first;
  number_ = qp_.send_queue.head();
  retries_left_ = qp_.attr().retry_cnt;
  rnr_retries_left_ = qp_.attr().rnr_retry;
  window_ = kStartWindow;
}

void Requester::reset() {
  next_ = unacked_ = went_back_to_ = Psn{};
  number_ = qp_.send_queue.tail();
  packet_ = responses_pending_ = read_requests_ = 0;
  expect_read_bytes(INT64_MIN);
  charge_ = acked_charge_ = rnr_until_ns_ = went_back_ns_ = 0;
  went_back_ = false;
}

void Requester::skip_to(std::uint64_t number) {
  ISTHMUS_ASSERT(idle());
  number_ = number;
  packet_ = 0;
}

std::uint64_t Requester::charge_per_packet() const { return qp_.mtu_bytes() + kPacketCharge; }

std::uint32_t Requester::read_piece_packets() const {
  return static_cast<std::uint32_t>(kReadPieceBytes / qp_.mtu_bytes());
}

bool Requester::transmit(PacketBurst& burst, std::uint64_t now) {
  if (rnr_until_ns_ > now) return false;
  rnr_until_ns_ = 0;
  if (number_ < qp_.send_queue.head()) {  // Went back, and then it was acknowledged after all.
    number_ = qp_.send_queue.head();
    packet_ = 0;
  }
  const std::uint64_t packets_before = burst.packets();
  bool more = false;
  while (number_ != qp_.send_queue.tail()) {
    if (burst.packets() - packets_before >= kPacketsPerRound) {
      more = true;
      break;
    }
    SendEntry& entry = qp_.send_queue.at(number_);
    if (!entry.started && !start_entry(entry)) break;
    if (entry.status != IBV_WC_SUCCESS) break;  // Nothing goes out behind a failure.
    if (!entry.done) {
      Step step = Step::kSent;
      if (entry.opcode == IBV_WR_RDMA_READ) {
        step = send_read_requests(entry, burst);
      } else if (entry.expects_response()) {
        step = send_atomic(entry, burst);
      } else {
        step = send_packets(entry, burst, now);
      }
      more = step == Step::kPaced;
      if (step != Step::kSent) break;
    }
    ++number_;
    packet_ = 0;
  }
  if (!idle() && burst.packets() != packets_before) arm_timeout(now);
  qp_.retire_sends();
  return more;
}

bool Requester::start_entry(SendEntry& entry) {
  if (!qp_.may_start()) return false;
  if ((entry.flags & IBV_SEND_FENCE) && responses_pending_ > 0) return false;
  entry.first_psn = never_sent_ = next_;
  entry.charge_before = charge_;
  entry.packets = 0;
  if (entry.opcode == IBV_WR_BIND_MW || entry.opcode == IBV_WR_LOCAL_INV) {
    entry.started = true;
    entry.status = qp_.execute_local(entry);
    entry.done = true;
    return true;
  }
  if (entry.expects_response()) {
    if (qp_.attr().max_rd_atomic == 0) {
      entry.started = true;
      fail_entry(entry, IBV_WC_LOC_QP_OP_ERR);
      return true;
    }
    if (read_requests_ >= qp_.attr().max_rd_atomic) return false;
  }
  const std::uint32_t packets =
      entry.is_atomic() ? 1
                        : std::max(1u, (entry.length + qp_.mtu_bytes() - 1) / qp_.mtu_bytes());
  if (!idle() && next_.steps_from(unacked_) + packets > kMaxPsnsUnderWay) return false;
  if (entry.expects_response()) ++responses_pending_;
  entry.started = true;
  entry.packets = packets;
  charge_ += entry.expects_response() ? kPacketCharge : entry.packets * charge_per_packet();
  next_ = next_.plus(entry.packets);
  return true;
}

// Whether `bytes` may leave now; then they are counted.
bool Requester::keeps_pace(std::uint64_t bytes, std::uint64_t now) {
  if (paced_until_ns_ > now + kUnpacedBytes) return false;
  paced_until_ns_ = std::max(paced_until_ns_, now) + bytes;
  return true;
}

Requester::Step Requester::send_packets(SendEntry& entry, PacketBurst& burst, std::uint64_t now) {
  const std::uint32_t acknowledged = unacked_.steps_from(entry.first_psn);
  if (acknowledged < entry.packets) packet_ = std::max(packet_, acknowledged);
  for (; packet_ < entry.packets; ++packet_) {
    const std::uint64_t before = entry.charge_before + packet_ * charge_per_packet();
    if (qp_.is_reliable() && before >= acked_charge_ + window_) return Step::kBlocked;
    if (!qp_.is_reliable() && !keeps_pace(qp_.mtu_bytes(), now)) return Step::kPaced;
    if (!send_packet(entry, packet_, burst)) return Step::kBlocked;
  }
  if (!qp_.is_reliable()) {
    unacked_ = next_;
    acked_charge_ = charge_;
    entry.done = true;
  }
  return Step::kSent;
}

bool Requester::send_packet(SendEntry& entry, std::uint32_t index, PacketBurst& burst) {
  const bool first = index == 0;
  const bool last = index + 1 == entry.packets;
  const std::uint64_t offset = std::uint64_t{index} * qp_.mtu_bytes();
  const auto bytes =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(qp_.mtu_bytes(), entry.length - offset));

  wire::RocePacket packet;
  packet.bth.opcode = data_opcode(qp_, entry, first, last);
  packet.bth.solicited = last && (entry.flags & IBV_SEND_SOLICITED);
  packet.bth.dest_qpn = qp_.attr().dest_qp_num;
  packet.bth.psn = entry.first_psn.plus(index).raw();
  packet.bth.pad_count = wire::pad_count(bytes);
  if (qp_.is_reliable()) {
    const bool is_newest = number_ + 1 == qp_.send_queue.tail();
    const bool wants_completion = (entry.flags & IBV_SEND_SIGNALED) || qp_.spec().signal_all;
    packet.bth.ack_request = (last && (wants_completion || is_newest || number_ % 8 == 7)) ||
                             index % kPacketsPerAckRequest == kPacketsPerAckRequest - 1;
  }
  packet.reth = {entry.remote_address, entry.rkey, entry.length};
  packet.imm.network_order = entry.immediate;
  packet.ieth.rkey = entry.immediate;
  packet.xrc.srq_number = entry.srq_number;

  if (!commit_with_payload(packet, entry, offset, bytes, burst)) {
    fail_entry(entry, IBV_WC_LOC_PROT_ERR);
    return false;
  }
  qp_.count_sent(last ? 1 : 0, bytes);
  return true;
}

// False: a key does not fit.
bool Requester::commit_with_payload(const wire::RocePacket& packet, const SendEntry& entry,
                                    std::uint64_t offset, std::uint32_t bytes,
                                    PacketBurst& burst) {
  const std::size_t header_bytes = wire::info(packet.bth.opcode).header_bytes;
  const std::size_t total = header_bytes + bytes + packet.bth.pad_count;
  const auto sges = qp_.send_queue.sges(number_);
  std::byte* out = burst.begin(total);
  wire::encode_headers(packet, out);
  const bool is_first_time = !Psn{packet.bth.psn}.is_behind(never_sent_);
  if (is_first_time) never_sent_ = Psn{packet.bth.psn}.next();
  if (entry.flags & IBV_SEND_INLINE) {
    std::memcpy(out + header_bytes, qp_.send_queue.inline_bytes(number_) + offset, bytes);
  } else if (is_first_time && burst.refers(bytes, qp_.qpn())) {
    std::array<iovec, kMaxSge> pieces;
    const int count = refer(qp_.engine().keys, qp_.pd_number(), sges, offset, bytes, pieces);
    if (count > 0) {
      burst.commit(qp_.path(), header_bytes, {pieces.data(), static_cast<std::size_t>(count)},
                   packet.bth.pad_count, qp_.qpn());
      return true;
    }
  }
  if (!(entry.flags & IBV_SEND_INLINE) &&
      !gather(qp_.engine().keys, qp_.pd_number(), sges, offset, {out + header_bytes, bytes})) {
    return false;
  }
  std::memset(out + header_bytes + bytes, 0, packet.bth.pad_count);
  burst.commit(qp_.path(), total, qp_.qpn());
  return true;
}

Requester::Step Requester::send_read_requests(SendEntry& entry, PacketBurst& burst) {
  const std::uint32_t piece = read_piece_packets();
  while (entry.requested < entry.packets) {
    if (read_requests_ >= qp_.attr().max_rd_atomic || !fits_read_window()) return Step::kBlocked;
    // Pieces keep their places across a resend, so that they can be counted.
    const std::uint32_t end = std::min(entry.packets, (entry.requested / piece + 1) * piece);
    const std::uint64_t offset = std::uint64_t{entry.requested} * qp_.mtu_bytes();
    const std::uint64_t limit = std::uint64_t{end} * qp_.mtu_bytes();
    wire::RocePacket packet;
    packet.bth.opcode = service_opcode(qp_, Opcode::kRcReadRequest);
    packet.bth.dest_qpn = qp_.attr().dest_qp_num;
    packet.bth.psn = entry.first_psn.plus(entry.requested).raw();
    packet.bth.ack_request = true;
    packet.reth = {entry.remote_address + offset, entry.rkey,
                   static_cast<std::uint32_t>(std::min<std::uint64_t>(limit, entry.length) -
                                              offset)};
    packet.xrc.srq_number = entry.srq_number;
    std::byte* out = burst.begin(wire::kMaxHeaderBytes);
    burst.commit(qp_.path(), wire::encode_headers(packet, out), qp_.qpn());
    expect_read_bytes((end - entry.requested) * std::int64_t{qp_.mtu_bytes()});
    entry.requested = end;
    ++read_requests_;
    qp_.count_sent(end == entry.packets ? 1 : 0, 0);
  }
  return Step::kSent;
}

// One piece each is always possible, so that no queue pair waits for others.
bool Requester::fits_read_window() const {
  return read_bytes_ == 0 || qp_.engine().read_bytes + kReadPieceBytes <= kReadWindow;
}

void Requester::expect_read_bytes(std::int64_t bytes) {
  bytes = std::max(bytes, -static_cast<std::int64_t>(read_bytes_));
  read_bytes_ += static_cast<std::uint64_t>(bytes);
  qp_.engine().read_bytes += static_cast<std::uint64_t>(bytes);
}

Requester::Step Requester::send_atomic(SendEntry& entry, PacketBurst& burst) {
  if (read_requests_ >= qp_.attr().max_rd_atomic) return Step::kBlocked;
  const bool swap = entry.opcode == IBV_WR_ATOMIC_CMP_AND_SWP;
  const bool write = entry.opcode == IBV_WR_ATOMIC_WRITE;
  Opcode opcode = swap ? Opcode::kRcCompareSwap : Opcode::kRcFetchAdd;
  if (write) opcode = Opcode::kRcAtomicWrite;
  wire::RocePacket packet;
  packet.bth.opcode = service_opcode(qp_, opcode);
  packet.bth.dest_qpn = qp_.attr().dest_qp_num;
  packet.bth.psn = entry.first_psn.raw();
  packet.bth.ack_request = true;
  packet.atomic = {entry.remote_address, entry.rkey,
                   swap ? entry.atomic.swap : entry.atomic.compare_add,
                   swap ? entry.atomic.compare_add : 0};
  packet.reth = {entry.remote_address, entry.rkey, 8};
  packet.xrc.srq_number = entry.srq_number;
  std::byte* out = burst.begin(wire::kMaxHeaderBytes + 8);
  std::size_t bytes = wire::encode_headers(packet, out);
  if (write) {
    std::memcpy(out + bytes, &entry.atomic.compare_add, 8);
    bytes += 8;
  }
  burst.commit(qp_.path(), bytes, qp_.qpn());
  ++read_requests_;
  qp_.count_sent(1, 8);
  return Step::kSent;
}

bool Requester::transmit_datagrams(PacketBurst& burst, std::uint64_t now) {
  const std::uint64_t packets_before = burst.packets();
  for (; number_ != qp_.send_queue.tail(); ++number_) {
    if (burst.packets() - packets_before >= kPacketsPerRound) break;
    if (!qp_.may_start()) break;
    SendEntry& entry = qp_.send_queue.at(number_);
    if (!keeps_pace(entry.length, now)) break;
    entry.started = entry.done = true;
    if (entry.length > qp_.mtu_bytes()) {
      fail_entry(entry, IBV_WC_LOC_LEN_ERR);
      break;
    }
    wire::RocePacket packet;
    packet.bth.opcode = entry.opcode == IBV_WR_SEND_WITH_IMM ? Opcode::kUdSendOnlyImm
                                                             : Opcode::kUdSendOnly;
    packet.bth.solicited = entry.flags & IBV_SEND_SOLICITED;
    packet.bth.dest_qpn = entry.ud.qpn;
    packet.bth.psn = next_.raw();
    packet.bth.pad_count = wire::pad_count(entry.length);
    // The top bit of a work request's key asks for the queue pair's own.
    const bool own_key = entry.ud.qkey & 0x8000'0000u;
    packet.deth = {.qkey = own_key ? qp_.attr().qkey : entry.ud.qkey, .src_qpn = qp_.qpn()};
    packet.imm.network_order = entry.immediate;
    const std::size_t header_bytes = wire::info(packet.bth.opcode).header_bytes;
    const std::size_t total = header_bytes + entry.length + packet.bth.pad_count;
    std::byte* out = burst.begin(total);
    wire::encode_headers(packet, out);
    if (entry.flags & IBV_SEND_INLINE) {
      std::memcpy(out + header_bytes, qp_.send_queue.inline_bytes(number_), entry.length);
    } else if (!gather(qp_.engine().keys, qp_.pd_number(), qp_.send_queue.sges(number_), 0,
                       {out + header_bytes, entry.length})) {
      fail_entry(entry, IBV_WC_LOC_PROT_ERR);
      break;
    }
    std::memset(out + header_bytes + entry.length, 0, packet.bth.pad_count);
    burst.commit(entry.path, total, qp_.qpn());
    next_ = unacked_ = next_.next();
    qp_.count_sent(1, entry.length);
  }
  qp_.retire_sends();
  return number_ != qp_.send_queue.tail() && qp_.may_start();
}

void Requester::fail_entry(SendEntry& entry, ibv_wc_status status) {
  entry.status = status;
  entry.done = true;
}

void Requester::fail_oldest(ibv_wc_status status) {
  if (qp_.send_queue.empty()) return;
  fail_entry(qp_.send_queue.at(qp_.send_queue.head()), status);
  qp_.retire_sends();
}

void Requester::acknowledge_entry(SendEntry& entry) {
  entry.done = true;
  unacked_ = entry.first_psn.plus(entry.packets);
  acked_charge_ = entry.charge_before +
                  (entry.expects_response() ? kPacketCharge : entry.packets * charge_per_packet());
}

bool Requester::acknowledge(Psn psn, std::uint64_t now) {
  const Psn before = unacked_;
  bool complete = true;
  for (std::uint64_t n = qp_.send_queue.head(); n != qp_.send_queue.tail(); ++n) {
    SendEntry& entry = qp_.send_queue.at(n);
    if (!entry.started || unacked_ == psn) break;
    if (entry.done || entry.packets == 0) continue;
    if (entry.expects_response()) {
      complete = false;
      break;
    }
    const std::uint32_t covered = psn.steps_from(entry.first_psn);
    if (covered < entry.packets) {
      unacked_ = psn;
      acked_charge_ = entry.charge_before + covered * charge_per_packet();
      break;
    }
    acknowledge_entry(entry);
  }
  if (unacked_ != before) note_progress(now);
  return complete;
}

void Requester::note_progress(std::uint64_t now) {
  retries_left_ = qp_.attr().retry_cnt;
  rnr_retries_left_ = qp_.attr().rnr_retry;
  went_back_ = false;
  window_ = std::min(kMaxWindow, window_ + charge_per_packet());
  arm_timeout(now);
}

void Requester::arm_timeout(std::uint64_t now) {
  if (rnr_until_ns_ != 0 || idle() || qp_.attr().timeout == 0) {
    qp_.arm_deadline(rnr_until_ns_ != 0 ? rnr_until_ns_ : UINT64_MAX);
    return;
  }
  qp_.arm_deadline(now + timeout_ns(qp_.attr().timeout));
}

void Requester::on_deadline(std::uint64_t now) {
  if (rnr_until_ns_ != 0) {
    if (now < rnr_until_ns_) {
      qp_.arm_deadline(rnr_until_ns_);
      return;
    }
    rnr_until_ns_ = 0;
    arm_timeout(now);
    qp_.engine().schedule(qp_);
    return;
  }
  if (idle()) return;
  if (retries_left_ == 0) {
    fail_oldest(IBV_WC_RETRY_EXC_ERR);
    return;
  }
  --retries_left_;
  went_back_ = false;
  go_back(now, true);
}

void Requester::go_back(std::uint64_t now, bool is_loss) {
  if (is_loss) {
    if (went_back_ && went_back_to_ == unacked_ && now - went_back_ns_ < kSameLossNs) return;
    went_back_ = true;
    went_back_to_ = unacked_;
    went_back_ns_ = now;
    window_ = std::max(window_ / 2, 4 * charge_per_packet());
    count(qp_.slot().counters.retries);
    count(qp_.engine().window->header.counters.retries);
  }
  read_requests_ = 0;
  expect_read_bytes(INT64_MIN);
  bool found = false;
  for (std::uint64_t n = qp_.send_queue.head(); n != qp_.send_queue.tail(); ++n) {
    SendEntry& entry = qp_.send_queue.at(n);
    if (!entry.started) break;
    if (entry.done || entry.packets == 0) continue;
    entry.requested = entry.received;
    if (found) continue;
    found = true;
    number_ = n;
    packet_ = entry.expects_response() ? 0 : unacked_.steps_from(entry.first_psn);
  }
  arm_timeout(now);
  qp_.engine().schedule(qp_);
}

std::uint64_t Requester::oldest_open() {
  std::uint64_t n = qp_.send_queue.head();
  for (; n != qp_.send_queue.tail(); ++n) {
    const SendEntry& entry = qp_.send_queue.at(n);
    if (!entry.started) return qp_.send_queue.tail();
    if (!entry.done) break;
  }
  return n;
}

void Requester::on_response(const wire::RocePacket& packet, std::uint64_t now) {
  if (!qp_.sends()) return;
  const Psn psn{packet.bth.psn};
  // Only what is under way can be answered. A NAK or RNR names a packet that was not executed.
  if (psn.steps_from(unacked_) >= next_.steps_from(unacked_)) return;

  const wire::Kind kind = wire::info(packet.bth.opcode).kind;
  if (kind == wire::Kind::kAck) {
    on_acknowledgement(packet, now);
  } else {
    acknowledge(psn, now);
    on_data_response(packet, oldest_open(), now);
  }
  qp_.retire_sends();
  qp_.engine().schedule(qp_);
}

void Requester::on_data_response(const wire::RocePacket& packet, std::uint64_t number,
                                 std::uint64_t now) {
  if (number == qp_.send_queue.tail()) return;
  SendEntry& entry = qp_.send_queue.at(number);
  if (!entry.expects_response()) return;
  if (Psn{packet.bth.psn} != entry.first_psn.plus(entry.received)) {
    // Ahead: something was lost. Behind cannot be, as unacked_ follows what was received.
    go_back(now, true);
    return;
  }
  const wire::Kind kind = wire::info(packet.bth.opcode).kind;
  if (kind == wire::Kind::kReadResponse && entry.opcode == IBV_WR_RDMA_READ) {
    on_read_response(packet, number, now);
  } else if (kind == wire::Kind::kReadResponse && entry.opcode == IBV_WR_ATOMIC_WRITE &&
             packet.payload.empty()) {
    finish_response(entry, now);
  } else if (kind == wire::Kind::kAtomicAck && entry.is_atomic()) {
    on_atomic_response(packet, number, now);
  } else {
    fail_entry(entry, IBV_WC_BAD_RESP_ERR);
  }
}

void Requester::on_acknowledgement(const wire::RocePacket& packet, std::uint64_t now) {
  const Psn psn{packet.bth.psn};
  switch (wire::aeth_kind(packet.aeth.syndrome)) {
    case wire::AethKind::kAck:
      // Acknowledging a READ before its response arrived: the response was lost.
      if (!acknowledge(psn.next(), now)) go_back(now, true);
      break;
    case wire::AethKind::kRnrNak:
      acknowledge(psn, now);
      if (rnr_retries_left_ == 0) {
        fail_oldest(IBV_WC_RNR_RETRY_EXC_ERR);
        break;
      }
      if (rnr_retries_left_ != 7) --rnr_retries_left_;  // 7: without end.
      rnr_until_ns_ = now + wire::rnr_timer_ns(wire::aeth_value(packet.aeth.syndrome));
      go_back(now, false);
      qp_.arm_deadline(rnr_until_ns_);
      break;
    case wire::AethKind::kNak:
      on_nak(packet, now);
      break;
    case wire::AethKind::kReserved:
      break;
  }
}

void Requester::on_nak(const wire::RocePacket& packet, std::uint64_t now) {
  acknowledge(Psn{packet.bth.psn}, now);
  switch (static_cast<wire::NakCode>(wire::aeth_value(packet.aeth.syndrome))) {
    case wire::NakCode::kPsnSequence:
      go_back(now, true);
      break;
    case wire::NakCode::kInvalidRequest:
      fail_oldest(IBV_WC_REM_INV_REQ_ERR);
      break;
    case wire::NakCode::kRemoteAccess:
      fail_oldest(IBV_WC_REM_ACCESS_ERR);
      break;
    default:
      fail_oldest(IBV_WC_REM_OP_ERR);
      break;
  }
}

void Requester::on_read_response(const wire::RocePacket& packet, std::uint64_t number,
                                 std::uint64_t now) {
  SendEntry& entry = qp_.send_queue.at(number);
  const std::uint64_t offset = std::uint64_t{entry.received} * qp_.mtu_bytes();
  const std::uint64_t expected = std::min<std::uint64_t>(qp_.mtu_bytes(), entry.length - offset);
  if (packet.payload.size() != expected) {
    fail_entry(entry, IBV_WC_BAD_RESP_ERR);
    return;
  }
  if (!scatter(qp_.engine().keys, qp_.pd_number(), qp_.send_queue.sges(number), offset,
               packet.payload)) {
    fail_entry(entry, IBV_WC_LOC_PROT_ERR);
    return;
  }
  ++entry.received;
  expect_read_bytes(-std::int64_t{qp_.mtu_bytes()});
  if (entry.requested < entry.received) entry.requested = entry.received;
  unacked_ = unacked_.next();
  const std::uint32_t piece = read_piece_packets();
  const bool piece_done = entry.received % piece == 0 || entry.received == entry.packets;
  if (piece_done && read_requests_ > 0) --read_requests_;
  qp_.count_received(0, packet.payload.size());
  if (entry.received == entry.packets) {
    --responses_pending_;
    acknowledge_entry(entry);
  }
  note_progress(now);
}

void Requester::on_atomic_response(const wire::RocePacket& packet, std::uint64_t number,
                                   std::uint64_t now) {
  SendEntry& entry = qp_.send_queue.at(number);
  const std::uint64_t original = packet.atomic_ack.original;
  if (!scatter(qp_.engine().keys, qp_.pd_number(), qp_.send_queue.sges(number), 0,
               std::as_bytes(std::span{&original, 1}))) {
    fail_entry(entry, IBV_WC_LOC_PROT_ERR);
    return;
  }
  finish_response(entry, now);
}

void Requester::finish_response(SendEntry& entry, std::uint64_t now) {
  if (read_requests_ > 0) --read_requests_;
  --responses_pending_;
  acknowledge_entry(entry);
  note_progress(now);
}

}  // namespace isthmus::rdma
