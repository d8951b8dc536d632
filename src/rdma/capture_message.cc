#include "rdma/capture_message.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "rdma/engine_state.h"
#include "rdma/queue_pair.h"
#include "wire/aeth.h"
#include "wire/byte_order.h"

namespace isthmus::rdma {
namespace {

using wire::Opcode;

class Recorder {
 public:
  Recorder(const QueuePair& qp, CaptureDirection direction, const CapturedMessage& message)
      : qp_(qp), direction_(direction), message_(message) {}

  void record_request(Opcode opcode, std::uint64_t offset, std::uint32_t bytes) {
    wire::RocePacket packet;
    packet.bth.opcode = opcode;
    packet.bth.ack_request = wire::info(opcode).last;
    packet.reth = {message_.remote_address, message_.rkey, message_.length};
    packet.imm.network_order = packet.ieth.rkey = message_.immediate;
    const bool swap = opcode == Opcode::kRcCompareSwap;
    packet.atomic = {message_.remote_address, message_.rkey,
                     swap ? message_.swap : message_.compare_add, swap ? message_.compare_add : 0};
    record(packet, direction_, offset, bytes);
  }

  void record_answer(Opcode opcode, std::uint64_t offset, std::uint32_t bytes) {
    wire::RocePacket packet;
    packet.bth.opcode = opcode;
    packet.aeth = {wire::ack_syndrome(), 0};
    packet.atomic_ack.original = message_.original;
    const bool outgoing = direction_ == CaptureDirection::kOutgoing;
    record(packet, outgoing ? CaptureDirection::kIncoming : CaptureDirection::kOutgoing, offset,
           bytes);
  }

 private:
  void record(wire::RocePacket& packet, CaptureDirection direction, std::uint64_t offset,
              std::uint32_t bytes) {
    const bool outgoing = direction == CaptureDirection::kOutgoing;
    const Path& path = qp_.path();
    packet.bth.dest_qpn = outgoing ? qp_.attr().dest_qp_num : qp_.qpn();
    packet.bth.psn = message_.psn & Psn::kMask;
    packet.bth.pad_count = wire::pad_count(bytes);
    std::array<std::byte, wire::kMaxRoceBytes> buffer;
    const std::size_t header_bytes = wire::encode_headers(packet, buffer.data());
    copy_payload(offset, bytes, buffer.data() + header_bytes);
    const std::size_t total = header_bytes + bytes + packet.bth.pad_count;
    std::memset(buffer.data() + header_bytes + bytes, 0, packet.bth.pad_count);
    const wire::IcrcFlow flow{outgoing ? path.source : path.destination,
                              outgoing ? path.destination : path.source, kRocePort, kRocePort};
    wire::store_le32(buffer.data() + total, wire::icrc(flow, {buffer.data(), total}));
    qp_.engine().capture->record({.timestamp_ns = qp_.engine().now(),
                                  .direction = direction,
                                  .channel = ChannelKind::kMemory,
                                  .source = flow.source,
                                  .destination = flow.destination,
                                  .local_qpn = qp_.qpn()},
                                 {buffer.data(), total + wire::kIcrcBytes});
  }

  void copy_payload(std::uint64_t offset, std::uint32_t bytes, std::byte* out) const {
    for (const iovec& piece : message_.payload) {
      if (bytes == 0) return;
      if (offset >= piece.iov_len) {
        offset -= piece.iov_len;
        continue;
      }
      const std::size_t part = std::min<std::size_t>(piece.iov_len - offset, bytes);
      std::memcpy(out, static_cast<const std::byte*>(piece.iov_base) + offset, part);
      out += part;
      bytes -= static_cast<std::uint32_t>(part);
      offset = 0;
    }
    std::memset(out, 0, bytes);
  }

  const QueuePair& qp_;
  CaptureDirection direction_;
  const CapturedMessage& message_;
};

// First, Middle, Last, Only of a kind of message.
struct Positions {
  Opcode first, middle, last, only;
};

Positions positions_of(ibv_wr_opcode opcode) {
  switch (opcode) {
    case IBV_WR_RDMA_WRITE:
      return {Opcode::kRcWriteFirst, Opcode::kRcWriteMiddle, Opcode::kRcWriteLast,
              Opcode::kRcWriteOnly};
    case IBV_WR_RDMA_WRITE_WITH_IMM:
      return {Opcode::kRcWriteFirst, Opcode::kRcWriteMiddle, Opcode::kRcWriteLastImm,
              Opcode::kRcWriteOnlyImm};
    case IBV_WR_RDMA_READ:
      return {Opcode::kRcReadResponseFirst, Opcode::kRcReadResponseMiddle,
              Opcode::kRcReadResponseLast, Opcode::kRcReadResponseOnly};
    case IBV_WR_SEND_WITH_IMM:
      return {Opcode::kRcSendFirst, Opcode::kRcSendMiddle, Opcode::kRcSendLastImm,
              Opcode::kRcSendOnlyImm};
    case IBV_WR_SEND_WITH_INV:
      return {Opcode::kRcSendFirst, Opcode::kRcSendMiddle, Opcode::kRcSendLastInvalidate,
              Opcode::kRcSendOnlyInvalidate};
    default:
      return {Opcode::kRcSendFirst, Opcode::kRcSendMiddle, Opcode::kRcSendLast,
              Opcode::kRcSendOnly};
  }
}

}  // namespace

void capture_message(const QueuePair& qp, CaptureDirection direction,
                     const CapturedMessage& message) {
  if (!qp.engine().capture->wants(qp.qpn())) return;
  Recorder recorder(qp, direction, message);
  const bool swap = message.opcode == IBV_WR_ATOMIC_CMP_AND_SWP;
  if (swap || message.opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
    recorder.record_request(swap ? Opcode::kRcCompareSwap : Opcode::kRcFetchAdd, 0, 0);
    recorder.record_answer(Opcode::kRcAtomicAck, 0, 0);
    ++message.psn;
    return;
  }
  const bool read = message.opcode == IBV_WR_RDMA_READ;
  if (read) recorder.record_request(Opcode::kRcReadRequest, 0, 0);
  const Positions positions = positions_of(message.opcode);
  const std::uint32_t packets =
      std::max(1u, (message.length + qp.mtu_bytes() - 1) / qp.mtu_bytes());
  for (std::uint32_t i = 0; i < packets; ++i) {
    const bool last = i + 1 == packets;
    Opcode opcode = positions.middle;
    if (i == 0) opcode = positions.first;
    if (last) opcode = i == 0 ? positions.only : positions.last;
    const std::uint64_t offset = std::uint64_t{i} * qp.mtu_bytes();
    const auto bytes = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(qp.mtu_bytes(), message.length - offset));
    if (read) {
      recorder.record_answer(opcode, offset, bytes);
    } else {
      recorder.record_request(opcode, offset, bytes);
      if (last) recorder.record_answer(Opcode::kRcAck, 0, 0);
    }
    ++message.psn;
  }
}

}  // namespace isthmus::rdma
