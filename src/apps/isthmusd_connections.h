// The connections that stand on this host, as questions to a policy document: for `isthmus policy
// show`, and for what `policy check` and `apply` say a document takes away.
//
// A queue pair that the connection manager knows is asked about as its request was, with the port
// of the service; any other as one that was set up without it.
//
// Threading: shard-confined to the loop.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "cluster/policy.h"
#include "control/cm_service.h"
#include "control/function_service.h"
#include "control/grpc/report.h"

namespace isthmus::apps {

// With all that its query borrows, so it stays where it is.
struct StandingConnection {
  std::uint32_t qpn = 0;
  std::int32_t process_id = 0;
  std::string program;
  std::string label;       // Of our end.
  std::string peer_label;  // Of the other, when peer_known.
  bool peer_known = false;
  cluster::ConnectionQuery query;
};
using StandingConnections = std::vector<std::unique_ptr<StandingConnection>>;

StandingConnections standing_connections(const control::FunctionService& functions,
                                         std::span<control::CmService* const> managers);

// What `document` decides for each. `changed`: it loses something that `before` gives it.
std::vector<control::ConnectionReport> report_connections(const StandingConnections& connections,
                                                          const cluster::PolicyDocument& before,
                                                          const cluster::PolicyDocument& document);

}  // namespace isthmus::apps
