// The policy document in force on this host, and the two gates that ask it: the connection
// manager's, for every request and reply, and the function service's, for queue pairs at RTR.
//
// A queue pair of a connection that the exception path has let through is admitted with what was
// granted there; any other is judged as one that was set up without the connection manager.
//
// Threading: shard-confined.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "cluster/policy.h"
#include "cm/host.h"
#include "cm/manager.h"
#include "control/admission_gate.h"

namespace isthmus::control {

class HostPolicy {
 public:
  explicit HostPolicy(cluster::PolicyDocument document) : document_(std::move(document)) {}

  const cluster::PolicyDocument& document() const { return document_; }
  // Whoever replaces it asks the services to reevaluate: first CmService, then FunctionService.
  void replace(cluster::PolicyDocument document) { document_ = std::move(document); }

 private:
  cluster::PolicyDocument document_;
};

// Of a message that this host's policy does not let pass: one line, at most this often.
inline constexpr std::uint32_t kDenialLinesPerSecond = 10;

class CmGate final : public cm::PolicyGate {
 public:
  // Nothing for a client that is gone.
  using LabelOf = std::function<std::optional<std::string>(cm::ClientId)>;

  CmGate(const HostPolicy& policy, LabelOf label_of)
      : policy_(policy), label_of_(std::move(label_of)) {}

  cm::GateAnswer judge(const cm::GateQuestion& question) override;

 private:
  void log_denial(const cm::GateQuestion& question, const cluster::ConnectionQuery& query,
                  const std::string& rule);

  const HostPolicy& policy_;
  LabelOf label_of_;
  std::uint64_t log_second_ = 0;
  std::uint32_t lines_in_second_ = 0;
};

class CmAdmissionGate final : public AdmissionGate {
 public:
  // The grant of the connection manager for this queue pair, if it has one.
  using FindGrant =
      std::function<std::optional<cm::ConnectionGrant>(const AdmissionQuestion& question)>;

  CmAdmissionGate(const HostPolicy& policy, FindGrant find_grant)
      : policy_(policy), find_grant_(std::move(find_grant)) {}

  AdmissionAnswer judge(const AdmissionQuestion& question) override;

 private:
  const HostPolicy& policy_;
  FindGrant find_grant_;
};

// ibv_access_flags of the remote operations among the rights.
std::uint32_t access_flags_of(cluster::Rights rights);

}  // namespace isthmus::control
