// The directory in etcd (3.4 or later), for hosts that share one; over its gRPC API.
//
// Every call ends within `deadline_ms`, which it also waits for an etcd that is away; a watch waits
// as long as it takes and goes on from where it was. A lease is granted in whole seconds, and at
// least what the election time-out of etcd demands.
// Without encryption: for a network of its own, or the loopback.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "cluster/directory/directory.h"

namespace isthmus::cluster {

struct EtcdDirectoryOptions {
  // As gRPC names servers: `host:2379`, or several as `ipv4:10.0.0.1:2379,10.0.0.2:2379`.
  std::string target;
  std::uint64_t deadline_ms = 5000;
};

// Connects when it is first used.
Result<std::unique_ptr<Directory>> open_etcd_directory(const EtcdDirectoryOptions& options);

}  // namespace isthmus::cluster
