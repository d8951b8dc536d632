// Noticing that the addresses or interfaces of a network namespace change.
#pragma once

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

// Readable when something changed in the calling thread's network namespace.
Result<Fd> watch_addresses();

// Takes all notices out; what changed is to be looked up (interfaces.h).
void drain_address_watch(const Fd& watch);

}  // namespace isthmus::os
