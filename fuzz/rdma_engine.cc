// Fuzzes what a peer or a neighbour can do to an engine: packets that arrive for a connected queue
// pair with requests under way, and whatever lies in its ring and in the neighbour's window.
//
// Input: one byte chooses the kind of queue pair, the rest is records: a length byte, then that
// many bytes. A record is an entry of the ring, or a packet, which is given the queue pair's number
// and a right ICRC so that it arrives.
#include <array>
#include <cstring>
#include <vector>

#include "rdma/completion_queue.h"
#include "sim/host.h"
#include "wire/byte_order.h"
#include "wire/icrc.h"

namespace {

using namespace isthmus;

const wire::IpAddress kUs = *wire::IpAddress::parse("fd00::1");
const wire::IpAddress kPeer = *wire::IpAddress::parse("fd00::2");

class Target {
 public:
  explicit Target(std::uint8_t kind)
      : type_(kind % 4 == 1 ? IBV_QPT_UC : kind % 4 == 2 ? IBV_QPT_UD : IBV_QPT_RC),
        us_(host_, {.type = type_, .memory_bytes = 64 * 1024}),
        peer_(peer_host_, {.type = type_, .memory_bytes = 64 * 1024}) {
    connect(us_, peer_, {.first_psn = 0, .neighbours = kind % 4 == 3});
    for (std::uint64_t i = 0; i < 8; ++i) us_.post_recv(i, 8192 * (i % 4), 4096);
    ibv_send_wr wr{};
    wr.wr.rdma = {peer_.address_of(0), peer_.mr->rkey()};
    for (const ibv_wr_opcode opcode : {IBV_WR_SEND, IBV_WR_RDMA_READ, IBV_WR_RDMA_WRITE}) {
      wr.opcode = opcode;
      if (type_ == IBV_QPT_RC) us_.post_send(wr, {us_.sge(32768, 3000)});
    }
  }

  void packet(std::span<const std::uint8_t> record) {
    std::vector<std::byte> bytes(record.size() + 4);
    std::memcpy(bytes.data(), record.data(), record.size());
    if (record.size() >= 12) wire::store_be32(bytes.data() + 4, us_.qp->qpn());
    // Most keys would be guesses: one bit of the record says to use the right one.
    if (record.size() >= 28 && (record[3] & 1)) {
      wire::store_be64(bytes.data() + 12, us_.address_of(record[27]));
      wire::store_be32(bytes.data() + 20, us_.mr->rkey());
    }
    const std::span<const std::byte> body{bytes.data(), record.size()};
    if (record.size() >= 12) {
      wire::store_le32(bytes.data() + record.size(),
                       wire::icrc({kPeer, kUs, rdma::kRocePort, rdma::kRocePort}, body));
    }
    const iovec part{bytes.data(), bytes.size()};
    const auto size = static_cast<std::uint32_t>(bytes.size());
    const rdma::OutgoingRun run{kPeer, kUs, {&part, 1}, size, size};
    network_.open(kPeer).send({&run, 1});
    network_.advance_to(network_.now_ns() + 10'000);
    step();
  }

  void ring(std::span<const std::uint8_t> record) {
    auto& slot = host_.window->rings[rdma::index_of(us_.qp->qpn())][ring_position_++ % 64];
    std::memcpy(&slot.request, record.data(), std::min(record.size(), sizeof slot.request));
    if (record.size() > sizeof slot.request) {
      std::memcpy(slot.bytes.data(), record.data() + sizeof slot.request,
                  std::min(record.size() - sizeof slot.request, slot.bytes.size()));
    }
    slot.request.source_qpn = peer_.qp->qpn();
    slot.request.dest_qpn = us_.qp->qpn();
    slot.state = static_cast<std::uint32_t>(rdma::RingState::kPosted);
    rdma::notify(*host_.as_neighbour(), rdma::index_of(us_.qp->qpn()));
    step();
  }

  void step() {
    host_.engine->progress();
    us_.poll(*us_.recv_cq);
    us_.poll(*us_.send_cq);
  }

 private:
  sim::Network network_{1, {}};
  sim::Host host_{network_, kUs, 1};
  sim::Host peer_host_{network_, kPeer, 2};
  ibv_qp_type type_;
  sim::End us_;
  sim::End peer_;
  std::uint64_t ring_position_ = 0;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::uint8_t kind = data[0];
  std::span<const std::uint8_t> rest{data + 1, size - 1};
  Target target(kind);
  for (int records = 0; !rest.empty() && records < 64; ++records) {
    const std::size_t length = std::min<std::size_t>(rest[0], rest.size() - 1);
    const auto record = rest.subspan(1, length);
    if (kind % 4 == 3) {
      target.ring(record);
    } else {
      target.packet(record);
    }
    rest = rest.subspan(1 + length);
  }
  return 0;
}
