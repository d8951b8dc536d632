#include "sim/network.h"

#include <algorithm>

namespace isthmus::sim {

class Network::Port : public rdma::PacketPort {
 public:
  Port(Network& network, const wire::IpAddress& address)
      : network_(network), address_(address) {}

  void send(std::span<const rdma::OutgoingRun> runs) override {
    for (const rdma::OutgoingRun& run : runs) {
      sent_.clear();
      for (const iovec& part : run.parts) {
        const auto* bytes = static_cast<const std::byte*>(part.iov_base);
        sent_.insert(sent_.end(), bytes, bytes + part.iov_len);
      }
      const std::span<const std::byte> whole{sent_};
      for (std::size_t at = 0; at < whole.size(); at += run.segment_bytes) {
        const std::size_t bytes = std::min<std::size_t>(run.segment_bytes, whole.size() - at);
        if (!cut_) network_.carry(run.source, run.destination, whole.subspan(at, bytes));
      }
    }
  }

  void ask_for_hops() override {}

  std::uint32_t max_segments() const override { return 64; }

  std::span<const rdma::IncomingDatagram> receive() override {
    bytes_.clear();
    batch_.clear();
    auto& flights = network_.flights_[address_];
    while (!flights.empty() && flights.top().at_ns <= network_.now_ns_) {
      bytes_.push_back(flights.top());
      flights.pop();
    }
    for (const Flight& flight : bytes_) {
      batch_.push_back({.source = flight.source,
                        .destination = flight.destination,
                        .source_port = rdma::kRocePort,
                        .hop_limit = 64,
                        .traffic_class = 0,
                        .payload = flight.bytes});
    }
    if (cut_) batch_.clear();
    return batch_;
  }

  bool join(const wire::IpAddress&) override { return true; }
  void leave(const wire::IpAddress&) override {}
  void cut() { cut_ = true; }

 private:
  Network& network_;
  wire::IpAddress address_;
  std::vector<std::byte> sent_;  // The run on its way.
  std::vector<Flight> bytes_;
  std::vector<rdma::IncomingDatagram> batch_;
  bool cut_ = false;
};

Network::Network(std::uint64_t seed, Faults faults) : random_(seed), faults_(faults) {}
Network::~Network() = default;

rdma::PacketPort& Network::open(const wire::IpAddress& address) {
  auto& port = ports_[address];
  if (!port) port = std::make_unique<Port>(*this, address);
  return *port;
}

void Network::cut(const wire::IpAddress& address) { ports_.at(address)->cut(); }

std::uint64_t Network::next_arrival_ns() const {
  std::uint64_t next = UINT64_MAX;
  for (const auto& [address, flights] : flights_) {
    // What has arrived already waits for its host, which may be one that nobody moves.
    const bool flies = !flights.empty() && flights.top().at_ns > now_ns_;
    if (flies) next = std::min(next, flights.top().at_ns);
  }
  return next;
}

void Network::carry(const wire::IpAddress& source, const wire::IpAddress& destination,
                    std::span<const std::byte> bytes) {
  if (chance(faults_.lose) || lose_next_from_ == source) {
    if (lose_next_from_ == source) lose_next_from_.reset();
    ++lost_;
    return;
  }
  const int copies = chance(faults_.repeat) ? 2 : 1;
  for (int i = 0; i < copies; ++i) {
    Flight flight{.at_ns = now_ns_ + faults_.latency_ns,
                  .order = order_++,
                  .source = source,
                  .destination = destination,
                  .bytes = {bytes.begin(), bytes.end()}};
    if (chance(faults_.delay)) flight.at_ns += random_() % faults_.delay_ns;
    if (chance(faults_.damage)) {
      flight.bytes[random_() % flight.bytes.size()] ^= std::byte(1u << (random_() % 8));
    }
    flights_[destination].push(std::move(flight));
  }
}

}  // namespace isthmus::sim
