// The port and its tables, for the functions of the private nodes.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>

namespace isthmus::verbs {

// `type` is the enumeration that sysfs implies: 0 for RoCE v1, 1 for RoCE v2.
int query_gid_type_of_sysfs(ibv_context* context, std::uint8_t port_number, unsigned index,
                            int* type);

}  // namespace isthmus::verbs
