// The end of a process that cannot go on, from any place, a signal handler too.
#pragma once

namespace isthmus::os {

// Writes the message and a newline to standard error and ends the process with kExitBroken.
[[noreturn]] void end_process(const char* message);

constexpr int kExitBroken = 125;  // What `isthmus run` ends with when it fails itself.

}  // namespace isthmus::os
