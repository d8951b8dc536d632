// A thread that faults alone is kept on one processor, beside the one that serves it. What asks for
// processors, or hands its own on, must not meet that.
#pragma once

namespace isthmus::preload {

// Until the thread has faulted some more, it may run wherever the program lets it.
void keep_no_processor();

}  // namespace isthmus::preload
