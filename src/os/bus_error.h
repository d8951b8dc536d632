// Bus errors (SIGBUS): of a userfaultfd with kUffdSigbus, they are page faults to be served in the
// thread that faulted.
//
// What the handler given here does not know goes to whoever had the signal before, or ends the
// process as it would have. It runs with all signals blocked, on the thread's alternate signal
// stack if it has one.
//
// Threading: catch_bus_errors() once, from one thread; the handler is called in any.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace isthmus::os {

enum class BusAccess : std::uint8_t { kRead, kWrite };

enum class BusVerdict : std::uint8_t {
  kResolved,  // Try the instruction again.
  kForeign,   // Not ours.
};

using BusErrorHandler = BusVerdict (*)(std::uint64_t address, BusAccess access);

Result<void> catch_bus_errors(BusErrorHandler handler);

}  // namespace isthmus::os
