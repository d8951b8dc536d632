// The watch over the runtime's own threads: none of them may wait for a far page, since that page
// could wait for the thread. What they use is local by construction (far_runtime.h); should that
// ever fail, the program ends with a message instead of hanging.
//
// Threading: any thread.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace isthmus::preload {

// In the threads themselves. More than there is room for are not watched.
void enter_watched_thread();
void leave_watched_thread();

Result<void> start_watch();

// In a child of fork(), where only the thread that forked is left; before start_watch().
void forget_watched_threads();

}  // namespace isthmus::preload
