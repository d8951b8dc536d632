// Path: the two addresses of a packet. AddressHandle: a path a program made for its datagrams.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>

#include "wire/ip.h"

namespace isthmus::rdma {

struct Path {
  wire::IpAddress source;
  wire::IpAddress destination;
  friend bool operator==(const Path&, const Path&) = default;
};

// Begins with the ABI object: a work request names that one.
struct AddressHandle {
  ibv_ah abi{};
  Path path;
  ibv_ah_attr attr{};
};

}  // namespace isthmus::rdma
