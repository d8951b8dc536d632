// RouteProbe: which of this host's addresses packets to a destination leave from.
//
// It asks the kernel by connecting a UDP socket, which sends nothing. The sockets stay in the
// network namespace they were made in, so any thread may ask later.
//
// Threading: shard-confined.
#pragma once

#include "base/result.h"
#include "os/fd.h"
#include "wire/ip.h"

namespace isthmus::os {

class RouteProbe {
 public:
  // In the calling thread's network namespace. Without IPv6 it knows IPv4 alone.
  static Result<RouteProbe> create();

  // kUnreachable: there is no route. Link-local IPv6 destinations have none without an interface.
  Result<wire::IpAddress> source_for(const wire::IpAddress& destination) const;

 private:
  RouteProbe(Fd v4, Fd v6) : v4_(std::move(v4)), v6_(std::move(v6)) {}

  Fd v4_;
  Fd v6_;
};

}  // namespace isthmus::os
