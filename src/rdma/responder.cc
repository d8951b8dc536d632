#include "rdma/responder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "rdma/engine_state.h"
#include "rdma/queue_pair.h"
#include "wire/grh.h"

namespace isthmus::rdma {
namespace {

using wire::Kind;
using wire::Opcode;

constexpr std::uint32_t kPacketsPerRound = 128;
// Answers are one for each outstanding READ or atomic, and an acknowledgement between any two.
constexpr std::size_t kMaxAnswers = 2 * kMaxReadAtomic + 2;
constexpr std::uint32_t kMsnMask = 0x00ff'ffff;

bool is_xrc(const wire::RocePacket& packet) {
  return wire::info(packet.bth.opcode).service == wire::Service::kXrc;
}

}  // namespace

void Responder::start(Psn first) {
  reset();
  expected_ = first;
}

void Responder::reset() {
  expected_ = Psn{};
  msn_ = 0;
  gap_reported_ = false;
  acknowledged_ = false;
  drop_message();
  answers_.clear();
  atomics_.fill({});
  next_atomic_ = 0;
}

void Responder::drop_message() {
  message_ = Message::kNone;
  has_receive_ = false;
  offset_ = 0;
}

bool Responder::take_unfinished(Receive& receive) {
  if (!has_receive_) return false;
  receive = receive_;
  has_receive_ = false;
  return true;
}

void Responder::on_request(const wire::RocePacket& packet, std::uint64_t) {
  const Psn psn{packet.bth.psn};
  if (is_xrc(packet)) qp_.use_domain_of(packet.xrc.srq_number);
  if (psn != expected_) {
    if (psn.is_behind(expected_)) {
      answer_duplicate(packet);
    } else if (!gap_reported_) {
      gap_reported_ = true;
      answer_ack(expected_, wire::nak_syndrome(wire::NakCode::kPsnSequence));
    }
    return;
  }
  std::uint32_t psns = 1;
  const Outcome outcome = execute(packet, psns);
  if (outcome == Outcome::kNotReady) {
    // The rest of the burst is dropped in silence: the requester goes back to this packet.
    gap_reported_ = true;
    answer_ack(expected_, wire::rnr_syndrome(qp_.attr().min_rnr_timer));
    return;
  }
  if (outcome != Outcome::kDone) {
    refuse(packet, outcome);
    return;
  }
  gap_reported_ = false;
  expected_ = expected_.plus(psns);
  const Kind kind = wire::info(packet.bth.opcode).kind;
  acknowledged_ = packet.bth.ack_request && (kind == Kind::kSend || kind == Kind::kWrite);
  if (acknowledged_) answer_ack(psn, wire::ack_syndrome());
}

bool Responder::check_position(const wire::RocePacket& packet) const {
  const wire::OpcodeInfo& info = wire::info(packet.bth.opcode);
  const Message wanted = info.kind == Kind::kSend ? Message::kSend : Message::kWrite;
  if (info.first ? message_ != Message::kNone : message_ != wanted) return false;
  // Every packet but the last is exactly as long as the path MTU.
  if (!info.last && packet.payload.size() != qp_.mtu_bytes()) return false;
  return packet.payload.size() <= qp_.mtu_bytes() &&
         (info.first || !info.last || !packet.payload.empty());
}

Responder::Outcome Responder::execute(const wire::RocePacket& packet, std::uint32_t& psns) {
  const wire::OpcodeInfo& info = wire::info(packet.bth.opcode);
  switch (info.kind) {
    case Kind::kSend:
      return check_position(packet) ? execute_send(packet) : Outcome::kInvalid;
    case Kind::kWrite:
      return check_position(packet) ? execute_write(packet) : Outcome::kInvalid;
    case Kind::kReadRequest:
      return message_ == Message::kNone ? execute_read(packet, false, psns) : Outcome::kInvalid;
    case Kind::kAtomicRequest:
      return message_ == Message::kNone ? execute_atomic(packet) : Outcome::kInvalid;
    case Kind::kAtomicWrite:
      return message_ == Message::kNone ? execute_atomic_write(packet) : Outcome::kInvalid;
    default:
      return Outcome::kInvalid;
  }
}

Responder::Outcome Responder::execute_send(const wire::RocePacket& packet) {
  const wire::OpcodeInfo& info = wire::info(packet.bth.opcode);
  if (info.first) {
    srq_number_ = is_xrc(packet) ? packet.xrc.srq_number : 0;
    // A receive may be left from an unreliable message that was lost half way.
    if (!has_receive_ && !qp_.take_receive(receive_, srq_number_)) return Outcome::kNotReady;
    has_receive_ = true;
    message_ = Message::kSend;
    offset_ = 0;
  }
  if (offset_ + packet.payload.size() > receive_.bytes) {
    qp_.complete_receive(receive_, {.status = IBV_WC_LOC_LEN_ERR, .opcode = IBV_WC_RECV}, true,
                         srq_number_);
    drop_message();
    return Outcome::kInvalid;
  }
  if (!scatter(qp_.engine().keys, qp_.pd_number(), receive_.list(), offset_, packet.payload)) {
    qp_.complete_receive(receive_, {.status = IBV_WC_LOC_PROT_ERR, .opcode = IBV_WC_RECV}, true,
                         srq_number_);
    drop_message();
    return Outcome::kOperational;
  }
  offset_ += packet.payload.size();
  qp_.count_received(info.last ? 1 : 0, packet.payload.size());
  if (info.last) {
    if (info.has_invalidate && !qp_.invalidate_by_peer(packet.ieth.rkey)) return Outcome::kAccess;
    complete_message(packet, false);
  }
  return Outcome::kDone;
}

Responder::Outcome Responder::write_memory(std::uint64_t address, std::span<const std::byte> bytes,
                                           std::uint32_t rkey) {
  if (bytes.empty()) return Outcome::kDone;
  KeyValues values;
  if (!qp_.engine().keys.check({.key = rkey,
                                .pd = qp_.pd_number(),
                                .qpn = qp_.qpn(),
                                .address = address,
                                .length = bytes.size(),
                                .access = IBV_ACCESS_REMOTE_WRITE},
                               values)) {
    return Outcome::kAccess;
  }
  return write_key_memory(values, bytes) ? Outcome::kDone : Outcome::kAccess;
}

Responder::Outcome Responder::execute_write(const wire::RocePacket& packet) {
  const wire::OpcodeInfo& info = wire::info(packet.bth.opcode);
  if (info.first) {
    if (!(qp_.access() & IBV_ACCESS_REMOTE_WRITE)) return Outcome::kInvalid;
    if (packet.reth.length > kMaxMessageBytes) return Outcome::kInvalid;
    srq_number_ = is_xrc(packet) ? packet.xrc.srq_number : 0;
    message_ = Message::kWrite;
    offset_ = 0;
    write_address_ = packet.reth.va;
    write_rkey_ = packet.reth.rkey;
    write_length_ = packet.reth.length;
    // The whole range must be writable before the first byte is written; none needs no key.
    KeyValues values;
    if (write_length_ > 0 && !qp_.engine().keys.check({.key = write_rkey_,
                                                       .pd = qp_.pd_number(),
                                                       .qpn = qp_.qpn(),
                                                       .address = write_address_,
                                                       .length = write_length_,
                                                       .access = IBV_ACCESS_REMOTE_WRITE},
                                                      values)) {
      return Outcome::kAccess;
    }
  }
  const std::uint64_t end = offset_ + packet.payload.size();
  if (end > write_length_ || (info.last && end != write_length_)) return Outcome::kInvalid;
  if (info.last && info.has_immediate && !has_receive_) {
    if (!qp_.take_receive(receive_, srq_number_)) {
      // An Only comes again as an Only, a Last as a Last of the same message.
      if (info.first) message_ = Message::kNone;
      return Outcome::kNotReady;
    }
    has_receive_ = true;
  }
  const Outcome outcome = write_memory(write_address_ + offset_, packet.payload, write_rkey_);
  if (outcome != Outcome::kDone) return outcome;
  offset_ = end;
  qp_.count_received(info.last ? 1 : 0, packet.payload.size());
  if (info.last) complete_message(packet, true);
  return Outcome::kDone;
}

void Responder::complete_message(const wire::RocePacket& packet, bool is_write) {
  const wire::OpcodeInfo& info = wire::info(packet.bth.opcode);
  msn_ = (msn_ + 1) & kMsnMask;
  if (has_receive_) {
    ibv_wc wc{};
    wc.status = IBV_WC_SUCCESS;
    wc.opcode = is_write ? IBV_WC_RECV_RDMA_WITH_IMM : IBV_WC_RECV;
    wc.byte_len = static_cast<std::uint32_t>(offset_);
    if (info.has_immediate) {
      wc.wc_flags = IBV_WC_WITH_IMM;
      wc.imm_data = packet.imm.network_order;
    } else if (info.has_invalidate) {
      wc.wc_flags = IBV_WC_WITH_INV;
      wc.invalidated_rkey = packet.ieth.rkey;
    }
    wc.src_qp = qp_.attr().dest_qp_num;
    qp_.complete_receive(receive_, wc, packet.bth.solicited, srq_number_);
  }
  drop_message();
}

Responder::Outcome Responder::execute_read(const wire::RocePacket& packet, bool again,
                                           std::uint32_t& psns) {
  if (!(qp_.access() & IBV_ACCESS_REMOTE_READ)) return Outcome::kInvalid;
  if (packet.reth.length > kMaxMessageBytes) return Outcome::kInvalid;
  const auto reads = static_cast<std::uint32_t>(
      std::count_if(answers_.begin(), answers_.end(),
                    [](const Answer& item) { return item.kind != AnswerKind::kAck; }));
  if (reads >= std::max<std::uint32_t>(1, qp_.attr().max_dest_rd_atomic)) return Outcome::kInvalid;
  KeyValues values;
  if (packet.reth.length > 0 && !qp_.engine().keys.check({.key = packet.reth.rkey,
                                                          .pd = qp_.pd_number(),
                                                          .qpn = qp_.qpn(),
                                                          .address = packet.reth.va,
                                                          .length = packet.reth.length,
                                                          .access = IBV_ACCESS_REMOTE_READ},
                                                         values)) {
    return Outcome::kAccess;
  }
  psns = std::max(1u, (packet.reth.length + qp_.mtu_bytes() - 1) / qp_.mtu_bytes());
  msn_ = (msn_ + 1) & kMsnMask;
  answer({.kind = AnswerKind::kRead,
          .syndrome = wire::ack_syndrome(),
          .psn = Psn{packet.bth.psn},
          .msn = msn_,
          .address = packet.reth.va,
          .rkey = packet.reth.rkey,
          .length = packet.reth.length,
          .packets = psns,
          .sent = 0,
          .again = again,
          .original = 0});
  qp_.count_received(1, 0);
  return Outcome::kDone;
}

Responder::Outcome Responder::execute_atomic(const wire::RocePacket& packet) {
  if (!(qp_.access() & IBV_ACCESS_REMOTE_ATOMIC)) return Outcome::kInvalid;
  if (packet.atomic.va % 8 != 0) return Outcome::kInvalid;
  KeyValues values;
  if (!qp_.engine().keys.check({.key = packet.atomic.rkey,
                                .pd = qp_.pd_number(),
                                .qpn = qp_.qpn(),
                                .address = packet.atomic.va,
                                .length = 8,
                                .access = IBV_ACCESS_REMOTE_ATOMIC},
                               values) ||
      values.host_address % 8 != 0) {
    return Outcome::kAccess;
  }
  const bool swap = (static_cast<std::uint8_t>(packet.bth.opcode) & 0x1f) ==
                    static_cast<std::uint8_t>(Opcode::kRcCompareSwap);
  const std::uint64_t original =
      swap ? apply_atomic(values.host_address, true, packet.atomic.compare, packet.atomic.swap_add)
           : apply_atomic(values.host_address, false, packet.atomic.swap_add, 0);
  msn_ = (msn_ + 1) & kMsnMask;
  atomics_[next_atomic_++ % atomics_.size()] = {Psn{packet.bth.psn}, original, true};
  answer({.kind = AnswerKind::kAtomic,
          .syndrome = wire::ack_syndrome(),
          .psn = Psn{packet.bth.psn},
          .msn = msn_,
          .original = original});
  qp_.count_received(1, 8);
  return Outcome::kDone;
}

Responder::Outcome Responder::execute_atomic_write(const wire::RocePacket& packet) {
  if (!(qp_.access() & IBV_ACCESS_REMOTE_WRITE)) return Outcome::kInvalid;
  if (packet.reth.va % 8 != 0 || packet.payload.size() != 8) return Outcome::kInvalid;
  KeyValues values;
  if (!qp_.engine().keys.check({.key = packet.reth.rkey,
                                .pd = qp_.pd_number(),
                                .qpn = qp_.qpn(),
                                .address = packet.reth.va,
                                .length = 8,
                                .access = IBV_ACCESS_REMOTE_WRITE},
                               values) ||
      values.host_address % 8 != 0) {
    return Outcome::kAccess;
  }
  std::uint64_t value = 0;
  std::memcpy(&value, packet.payload.data(), 8);
  store_atomic(values.host_address, value);
  msn_ = (msn_ + 1) & kMsnMask;
  answer_empty_read(Psn{packet.bth.psn});
  qp_.count_received(1, 8);
  return Outcome::kDone;
}

// What answers an atomic write: a READ response without payload.
void Responder::answer_empty_read(Psn psn) {
  answer({.kind = AnswerKind::kRead,
          .syndrome = wire::ack_syndrome(),
          .psn = psn,
          .msn = msn_,
          .packets = 1});
}

void Responder::refuse(const wire::RocePacket& packet, Outcome outcome) {
  wire::NakCode code = wire::NakCode::kInvalidRequest;
  if (outcome == Outcome::kAccess) code = wire::NakCode::kRemoteAccess;
  if (outcome == Outcome::kOperational) code = wire::NakCode::kRemoteOperational;
  answer_ack(Psn{packet.bth.psn}, wire::nak_syndrome(code));
  // The answer leaves before the error state silences us.
  transmit(qp_.engine().burst);
  qp_.engine().burst.flush();
  qp_.enter_error(outcome == Outcome::kInvalid ? IBV_EVENT_QP_REQ_ERR : IBV_EVENT_QP_ACCESS_ERR);
}

void Responder::answer_duplicate(const wire::RocePacket& packet) {
  const Psn psn{packet.bth.psn};
  const Kind kind = wire::info(packet.bth.opcode).kind;
  if (kind == Kind::kSend || kind == Kind::kWrite) {
    answer_ack(expected_.previous(), wire::ack_syndrome());
    return;
  }
  // The requester goes back to here and asks for all behind it again: also the rest of a READ of
  // which it has the beginning.
  const auto reaches_here = [psn](const Answer& item) {
    return !item.psn.plus(std::max(1u, item.packets) - 1).is_behind(psn);
  };
  while (!answers_.empty() && reaches_here(answers_.back())) answers_.pop_back();
  if (kind == Kind::kReadRequest) {
    // Again from memory: the value may be newer, which a READ may see.
    std::uint32_t psns = 0;
    const std::uint32_t msn = msn_;
    const Outcome outcome = execute_read(packet, true, psns);
    msn_ = msn;
    if (outcome != Outcome::kDone && outcome != Outcome::kNotReady) refuse(packet, outcome);
    return;
  }
  if (kind == Kind::kAtomicWrite) {
    answer_empty_read(psn);
    return;
  }
  for (const SavedAtomic& saved : atomics_) {
    if (saved.valid && saved.psn == psn) {
      answer({.kind = AnswerKind::kAtomic,
              .syndrome = wire::ack_syndrome(),
              .psn = psn,
              .msn = msn_,
              .original = saved.original});
      return;
    }
  }
}

void Responder::answer_ack(Psn psn, std::uint8_t syndrome) {
  const Answer next{.kind = AnswerKind::kAck, .syndrome = syndrome, .psn = psn, .msn = msn_};
  // A later acknowledgement says all that an earlier one did.
  if (!answers_.empty() && answers_.back().kind == AnswerKind::kAck &&
      wire::aeth_kind(answers_.back().syndrome) == wire::AethKind::kAck) {
    answers_.back() = next;
    return;
  }
  answer(next);
}

bool Responder::acknowledge_again() {
  if (!std::exchange(acknowledged_, false)) return false;
  answer_ack(expected_.previous(), wire::ack_syndrome());
  return true;
}

void Responder::answer(const Answer& next) {
  // A requester that asks for more than it agreed to is not answered: it will ask again.
  if (answers_.size() >= kMaxAnswers) return;
  answers_.push_back(next);
  qp_.engine().schedule(qp_);
}

bool Responder::transmit(PacketBurst& burst) {
  std::uint32_t budget = kPacketsPerRound;
  while (!answers_.empty() && budget > 0) {
    Answer& item = answers_.front();
    if (item.kind == AnswerKind::kRead) {
      if (!send_read_packets(item, burst, budget)) return false;
      if (item.sent < item.packets) break;
    } else {
      send_short(item, burst);
      --budget;
    }
    answers_.pop_front();
  }
  return !answers_.empty();
}

void Responder::send_short(const Answer& item, PacketBurst& burst) {
  const bool xrc = qp_.type() == IBV_QPT_XRC_RECV;
  const Opcode opcode = item.kind == AnswerKind::kAtomic ? Opcode::kRcAtomicAck : Opcode::kRcAck;
  wire::RocePacket packet;
  packet.bth.opcode = static_cast<Opcode>(static_cast<std::uint8_t>(opcode) |
                                          (xrc ? std::uint8_t{0xa0} : std::uint8_t{0}));
  packet.bth.dest_qpn = qp_.attr().dest_qp_num;
  packet.bth.psn = item.psn.raw();
  packet.aeth = {item.syndrome, item.msn};
  packet.atomic_ack.original = item.original;
  std::byte* out = burst.begin(wire::kMaxHeaderBytes);
  burst.commit(qp_.path(), wire::encode_headers(packet, out), qp_.qpn());
}

bool Responder::refuse_read(const Answer& read, PacketBurst& burst) {
  const Answer nak{.kind = AnswerKind::kAck,
                   .syndrome = wire::nak_syndrome(wire::NakCode::kRemoteAccess),
                   .psn = read.psn.plus(read.sent),
                   .msn = read.msn};
  send_short(nak, burst);
  qp_.enter_error(IBV_EVENT_QP_ACCESS_ERR);
  return false;
}

bool Responder::send_read_packets(Answer& read, PacketBurst& burst, std::uint32_t& budget) {
  const std::uint8_t base = qp_.type() == IBV_QPT_XRC_RECV ? 0xa0 : 0;
  KeyValues values;
  if (read.length > 0 && !qp_.engine().keys.check({.key = read.rkey,
                                                   .pd = qp_.pd_number(),
                                                   .qpn = qp_.qpn(),
                                                   .address = read.address,
                                                   .length = read.length,
                                                   .access = IBV_ACCESS_REMOTE_READ},
                                                  values)) {
    return refuse_read(read, burst);  // Deregistered since it was asked for.
  }
  for (; read.sent < read.packets && budget > 0; ++read.sent, --budget) {
    const bool first = read.sent == 0;
    const bool last = read.sent + 1 == read.packets;
    const std::uint64_t offset = std::uint64_t{read.sent} * qp_.mtu_bytes();
    const std::size_t bytes = std::min<std::size_t>(qp_.mtu_bytes(), read.length - offset);
    Opcode opcode = Opcode::kRcReadResponseMiddle;
    if (first) opcode = Opcode::kRcReadResponseFirst;
    if (last) opcode = first ? Opcode::kRcReadResponseOnly : Opcode::kRcReadResponseLast;
    wire::RocePacket packet;
    packet.bth.opcode = static_cast<Opcode>(static_cast<std::uint8_t>(opcode) | base);
    packet.bth.dest_qpn = qp_.attr().dest_qp_num;
    packet.bth.psn = read.psn.plus(read.sent).raw();
    packet.bth.pad_count = wire::pad_count(bytes);
    packet.aeth = {read.syndrome, read.msn};
    const std::size_t header_bytes = wire::info(packet.bth.opcode).header_bytes;
    std::byte* out = burst.begin(header_bytes + bytes + packet.bth.pad_count);
    wire::encode_headers(packet, out);
    if (!read.again && values.flags == 0 && burst.refers(bytes, qp_.qpn())) {
      // SAFETY: inside a memory region that the program registered and still owns.
      const iovec piece{reinterpret_cast<void*>(values.host_address + offset), bytes};
      burst.commit(qp_.path(), header_bytes, {&piece, 1}, packet.bth.pad_count, qp_.qpn());
    } else {
      if (!read_key_memory(values, offset, {out + header_bytes, bytes})) {
        return refuse_read(read, burst);
      }
      std::memset(out + header_bytes + bytes, 0, packet.bth.pad_count);
      burst.commit(qp_.path(), header_bytes + bytes + packet.bth.pad_count, qp_.qpn());
    }
    qp_.count_sent(last ? 1 : 0, bytes);
  }
  return true;
}

void Responder::on_unreliable_request(const wire::RocePacket& packet) {
  const wire::OpcodeInfo& info = wire::info(packet.bth.opcode);
  const Psn psn{packet.bth.psn};
  // A gap, or a new message before the old one ended, loses the message that was arriving. Its
  // receive stays for the next one.
  if (psn != expected_ || info.first) {
    const bool keeps_receive = has_receive_;
    drop_message();
    has_receive_ = keeps_receive;
  }
  expected_ = psn.next();
  if (!check_position(packet)) return;
  Outcome outcome = Outcome::kInvalid;
  if (info.kind == Kind::kSend) outcome = execute_send(packet);
  if (info.kind == Kind::kWrite) outcome = execute_write(packet);
  if (outcome == Outcome::kNotReady) drop_message();
  if (outcome == Outcome::kInvalid || outcome == Outcome::kAccess) drop_message();
  if (outcome == Outcome::kOperational) qp_.enter_error(IBV_EVENT_QP_FATAL);
}

void Responder::on_datagram(const IncomingDatagram& datagram, const wire::RocePacket& packet) {
  if (packet.deth.qkey != qp_.attr().qkey) {
    count(qp_.slot().counters.drops);
    return;
  }
  Receive receive;
  if (!qp_.take_receive(receive)) {
    count(qp_.slot().counters.drops);
    return;
  }
  ibv_wc wc{};
  wc.opcode = IBV_WC_RECV;
  wc.byte_len = static_cast<std::uint32_t>(packet.payload.size() + wire::kGrhBytes);
  wc.wc_flags = IBV_WC_GRH;
  // RoCE has no service level; its place tells what the header in front of the data is, as
  // hardware does (annex A17.4.5.1) and UCX relies on: bit 3 for UDP, then 2 for IPv4, 1 for IPv6.
  wc.sl = datagram.source.is_v4() ? 0x8 | 2 : 0x8 | 1;
  wc.src_qp = packet.deth.src_qpn;
  if (wire::info(packet.bth.opcode).has_immediate) {
    wc.wc_flags |= IBV_WC_WITH_IMM;
    wc.imm_data = packet.imm.network_order;
  }
  std::array<std::byte, wire::kGrhBytes> grh{};
  wire::encode({.source = datagram.source,
                .destination = datagram.destination,
                .traffic_class = datagram.traffic_class,
                .hop_limit = datagram.hop_limit,
                .udp_payload_bytes = static_cast<std::uint16_t>(datagram.payload.size())},
               grh);
  const KeyTable& keys = qp_.engine().keys;
  wc.status = IBV_WC_SUCCESS;
  if (wc.byte_len > receive.bytes) {
    wc.status = IBV_WC_LOC_LEN_ERR;
  } else if (!scatter(keys, qp_.pd_number(), receive.list(), 0, grh) ||
             !scatter(keys, qp_.pd_number(), receive.list(), wire::kGrhBytes, packet.payload)) {
    wc.status = IBV_WC_LOC_PROT_ERR;
  }
  qp_.count_received(1, packet.payload.size());
  qp_.complete_receive(receive, wc, packet.bth.solicited);
  if (wc.status != IBV_WC_SUCCESS) qp_.enter_error(IBV_EVENT_QP_FATAL);
}

}  // namespace isthmus::rdma
