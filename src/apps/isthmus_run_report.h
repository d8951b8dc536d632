// `isthmus run --report`: the program runs as a child and is watched; at its end a page is written.
#pragma once

#include <string>
#include <vector>

#include "apps/isthmus_options.h"
#include "os/child_process.h"

namespace isthmus::apps {

// The exit status of the program, or why it could not be started or the report not be written.
CommandResult run_with_report(const std::vector<std::string>& command,
                              const os::EnvironmentChanges& environment,
                              const std::string& report_file);

}  // namespace isthmus::apps
