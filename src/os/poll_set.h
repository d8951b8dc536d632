// poll(2) over a caller's own list, with a timeout in nanoseconds: for the poll calls we offer to
// programs, whose lists and semantics are those of poll.
#pragma once

#include <poll.h>

#include <cstdint>
#include <span>

#include "base/result.h"

namespace isthmus::os {

// How many items have something to say; 0 after `timeout_ns` (kWaitForEver of epoll.h: never).
// EINTR: a signal handler ran.
Result<int> poll_set(std::span<pollfd> items, std::uint64_t timeout_ns);

}  // namespace isthmus::os
