// The one device of this process.
//
// Threading: any thread.
#pragma once

#include "base/result.h"
#include "verbs/device_facts.h"

namespace isthmus::verbs {

// Of the daemon that answers now: asked once, then remembered.
Result<DeviceFacts> device_facts_of_daemon();

}  // namespace isthmus::verbs
