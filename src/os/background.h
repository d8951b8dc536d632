// Going into the background: a process that outlives the terminal it was started from.
#pragma once

#include <string>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

// The child goes on as a background process in a session of its own, its output going to the end
// of `log_path`; the parent waits until the child has called report_started() or has ended, and
// then never returns from here but exits, with the child's words on standard error if it failed.
// Before any thread is started.
Result<Fd> go_into_background(const std::string& log_path);

// `report` is what go_into_background returned, perhaps not valid (in the foreground).
void report_started(Fd& report);
void report_failed(Fd& report, const std::string& message);

}  // namespace isthmus::os
