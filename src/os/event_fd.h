// Event counters (eventfd): a doorbell that another process or thread can ring and epoll can see.
#pragma once

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

enum class EventFdKind {
  kCounter,    // A drain takes everything.
  kSemaphore,  // A read takes one.
};

Result<Fd> create_event_fd(EventFdKind kind = EventFdKind::kCounter);

// Neither blocks. `fd` may be any number that came from outside: errors are ignored, because a
// bell that cannot be rung belongs to somebody who is gone.
void signal(int fd);
void drain(int fd);

}  // namespace isthmus::os
