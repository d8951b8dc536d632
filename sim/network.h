// Network: a UDP network with a seed. It loses, repeats, reorders, delays and damages datagrams,
// and it owns the clock: time passes only when there is nothing left to do at the present moment.
//
// Everything that happens follows from the seed, so a failing run is replayed by its number.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <random>
#include <vector>

#include "rdma/packet_port.h"

namespace isthmus::sim {

// Probabilities are per datagram, in percent.
struct Faults {
  unsigned lose = 0;
  unsigned repeat = 0;
  unsigned damage = 0;
  unsigned delay = 0;             // By up to delay_ns more than the others: reorders.
  std::uint64_t delay_ns = 200'000;
  std::uint64_t latency_ns = 2'000;
};

class Network {
 public:
  Network(std::uint64_t seed, Faults faults);
  ~Network();

  // A port with this address. It lives as long as the network.
  rdma::PacketPort& open(const wire::IpAddress& address);
  // Nothing goes in or out of it any more: a killed host.
  void cut(const wire::IpAddress& address);
  // The next datagram from there is lost.
  void lose_next_from(const wire::IpAddress& address) { lose_next_from_ = address; }

  std::uint64_t now_ns() const { return now_ns_; }
  void advance_to(std::uint64_t now_ns) { now_ns_ = now_ns; }
  // When the next datagram arrives; UINT64_MAX: none is under way.
  std::uint64_t next_arrival_ns() const;
  std::mt19937_64& random() { return random_; }
  std::uint64_t lost() const { return lost_; }

 private:
  class Port;
  struct Flight {
    std::uint64_t at_ns;
    std::uint64_t order;  // Ties arrive in the order of sending.
    wire::IpAddress source;
    wire::IpAddress destination;
    std::vector<std::byte> bytes;
    bool operator>(const Flight& other) const {
      return at_ns != other.at_ns ? at_ns > other.at_ns : order > other.order;
    }
  };

  void carry(const wire::IpAddress& source, const wire::IpAddress& destination,
             std::span<const std::byte> bytes);
  bool chance(unsigned percent) { return random_() % 100 < percent; }

  std::mt19937_64 random_;
  Faults faults_;
  std::uint64_t now_ns_ = 1'000'000'000;
  std::uint64_t order_ = 0;
  std::uint64_t lost_ = 0;
  std::optional<wire::IpAddress> lose_next_from_;
  std::map<wire::IpAddress, std::unique_ptr<Port>> ports_;
  std::map<wire::IpAddress,
           std::priority_queue<Flight, std::vector<Flight>, std::greater<>>> flights_;
};

}  // namespace isthmus::sim
