// Completion channels: how a program waits for completions without polling.
//
// Threading: the functions here need the context's lock.
#pragma once

#include "verbs/objects.h"

namespace isthmus::verbs {

// One more event of `cq` waits in its channel.
void add_event(Cq& cq);

// Before a CQ is destroyed: its events are gone.
void purge_events(Channel& channel, Cq& cq);

}  // namespace isthmus::verbs
