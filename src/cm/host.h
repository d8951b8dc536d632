// What the connection manager asks of its surroundings: the addresses of this host, and policy.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "cm/exchange.h"
#include "wire/ip.h"

namespace isthmus::cm {

// A program that uses the connection manager; its owner knows what stands behind the number.
using ClientId = std::uint32_t;

struct LocalAddress {
  wire::IpAddress ip;
  std::uint8_t gid_index = 0;
  std::uint8_t mtu = 0;  // ibv_mtu that fits the interface.
};

class HostAddresses {
 public:
  virtual ~HostAddresses() = default;
  virtual std::optional<LocalAddress> find(const wire::IpAddress& ip) const = 0;
  // The address that packets to `destination` leave from. kUnreachable: there is no way.
  virtual Result<LocalAddress> source_for(const wire::IpAddress& destination) const = 0;
};

enum class GatePoint : std::uint8_t { kRequestOut, kRequestIn, kReplyOut, kReplyIn };

// RC, UC and XRC as on the wire; datagram services apart.
enum class GateTransport : std::uint8_t { kRc, kUc, kXrc, kUd };

struct GateQuestion {
  GatePoint point = GatePoint::kRequestOut;
  ClientId client = 0;     // The program on this side.
  ClientId neighbour = 0;  // The one on the other side, where it is a program of this daemon too.
  wire::IpAddress local;
  wire::IpAddress remote;
  std::optional<std::uint16_t> port;  // Of the service.
  GateTransport transport = GateTransport::kRc;
  Origin origin = Origin::kForeign;   // Of the message, where it came in.
};

struct GateAnswer {
  bool allowed = true;
  std::uint32_t peer_access = 0;  // ibv_access_flags: what the peer may do to our memory at most.
  std::string rule;               // That decided.
};

// The policy of this host. Asked for every request and every reply, on each side.
class PolicyGate {
 public:
  virtual ~PolicyGate() = default;
  virtual GateAnswer judge(const GateQuestion& question) = 0;
};

}  // namespace isthmus::cm
