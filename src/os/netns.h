// Network namespaces: which one a process is in, and doing something inside another one.
#pragma once

#include <cstdint>
#include <functional>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

// The namespace of a process; 0 is the caller.
Result<Fd> open_network_namespace(std::int32_t process_id);

// Equal for two descriptors of one namespace, and different otherwise as long as it lives.
Result<std::uint64_t> network_namespace_id(const Fd& network_namespace);

// Runs `action` in a thread of its own that has entered the namespace, and waits for it. Sockets
// made there belong to that namespace for ever. kDenied: the caller may not (CAP_SYS_ADMIN there).
Result<void> run_in_network_namespace(const Fd& network_namespace,
                                      const std::function<Result<void>()>& action);

}  // namespace isthmus::os
