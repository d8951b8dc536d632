// For tests and the simulation: a host whose addresses, policy and random numbers are given.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <string_view>
#include <vector>

#include "cm/manager.h"

namespace isthmus::cm {

inline wire::IpAddress ip(std::string_view text) { return wire::IpAddress::parse(text).value(); }

inline SocketAddress at(std::string_view text, std::uint16_t port = 0) {
  const wire::IpAddress address = ip(text);
  return SocketAddress{.family = address.is_v4() ? Family::kV4 : Family::kV6,
                       .ip = address,
                       .port = port};
}

class FixedAddresses : public HostAddresses {
 public:
  explicit FixedAddresses(std::vector<wire::IpAddress> own) : own_(std::move(own)) {}

  std::optional<LocalAddress> find(const wire::IpAddress& address) const override {
    for (std::size_t i = 0; i < own_.size(); ++i) {
      if (own_[i] == address) {
        return LocalAddress{.ip = address, .gid_index = static_cast<std::uint8_t>(i), .mtu = 3};
      }
    }
    return std::nullopt;
  }

  // The first address of the family; 192.0.2.0/24 is where no way leads.
  Result<LocalAddress> source_for(const wire::IpAddress& destination) const override {
    const bool nowhere = destination.is_v4() && (destination.v4() & 0xffff'ff00) == 0xc000'0200;
    for (const wire::IpAddress& address : own_) {
      if (!nowhere && address.is_v4() == destination.is_v4()) return *find(address);
    }
    return fail(ErrorCode::kUnreachable, "no way to %s", destination.to_string().c_str());
  }

 private:
  std::vector<wire::IpAddress> own_;
};

inline constexpr std::uint32_t kAllAccess = 2 | 4 | 8;  // WRITE, READ, ATOMIC.

// Allows everything, until told otherwise.
class FixedGate : public PolicyGate {
 public:
  std::optional<GatePoint> denied_point;
  std::uint32_t access = kAllAccess;
  std::vector<GateQuestion> asked;

  GateAnswer judge(const GateQuestion& question) override {
    asked.push_back(question);
    return {.allowed = denied_point != question.point, .peer_access = access, .rule = "test"};
  }
};

struct FakeHost {
  explicit FakeHost(std::vector<wire::IpAddress> own, std::uint64_t seed = 1,
                    const Settings& settings = {})
      : addresses(std::move(own)),
        random(seed),
        manager(settings, [this] { return random(); }, 0x1122'3344'5566'7788, addresses, gate) {}

  FixedAddresses addresses;
  FixedGate gate;
  std::mt19937_64 random;
  Manager manager;
};

}  // namespace isthmus::cm
