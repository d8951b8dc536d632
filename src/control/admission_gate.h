// AdmissionGate: who may connect, asked by the function service at every change to RTR and again
// when the policy has changed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "wire/ip.h"

namespace isthmus::control {

struct AdmissionQuestion {
  std::string label;            // Of the asking instance.
  std::int32_t process_id = 0;  // As the daemon sees it.
  std::uint32_t qpn = 0;
  std::uint32_t dest_qpn = 0;
  wire::IpAddress local;
  wire::IpAddress remote;
  std::uint32_t transport = 0;  // ibv_qp_type: RC, UC, XRC_SEND or XRC_RECV.
  std::optional<std::string> remote_label;  // Known when the peer is a function of this daemon.
};

struct AdmissionAnswer {
  bool allowed = true;
  std::uint32_t peer_access = 0;  // ibv_access_flags: what the peer may do to our memory at most.
  std::string rule;               // That decided; for people.
};

class AdmissionGate {
 public:
  virtual ~AdmissionGate() = default;
  virtual AdmissionAnswer judge(const AdmissionQuestion& question) = 0;
};

// Lets everything pass.
class OpenGate final : public AdmissionGate {
 public:
  AdmissionAnswer judge(const AdmissionQuestion& question) override;
};

}  // namespace isthmus::control
