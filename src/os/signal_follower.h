// Signal followers: who gets a signal that we caught and that turns out not to be ours: whoever had
// it before us, or what the program asked for since.
//
// Threading: any thread; pass_to_follower() in the signal's handler.
#pragma once

#include <csignal>

namespace isthmus::os {

void set_follower(int signal_number, const struct sigaction& action);

// As if we were not there: the follower's handler, under the mask that it asked for, or the end of
// the process.
void pass_to_follower(int signal_number, siginfo_t* info, void* context);

}  // namespace isthmus::os
