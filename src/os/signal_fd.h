// Signals as something epoll can see.
#pragma once

#include <initializer_list>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

// Blocks the signals in this thread, and in the threads it starts from now on, and makes them
// readable. SIGPIPE is ignored as well: a closed connection is an error of the write.
Result<Fd> take_signals(std::initializer_list<int> signals);

// The next signal that came; 0: none.
int next_signal(const Fd& signals);

}  // namespace isthmus::os
