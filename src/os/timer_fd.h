// A timer that epoll can see.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

Result<Fd> create_timer_fd();

// Readable from `delay_ns` from now on, once; 0 stops it. Setting it again forgets what was.
void set_timer(const Fd& timer, std::uint64_t delay_ns);

}  // namespace isthmus::os
