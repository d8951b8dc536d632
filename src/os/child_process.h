// Other programs: run to their end with their output kept, or in place of this process.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace isthmus::os {

// Added to the environment of this process.
using EnvironmentChanges = std::vector<std::pair<std::string, std::string>>;

struct FinishedProcess {
  int status = 0;      // Exit status; 128 + number when a signal ended it.
  std::string output;  // Both streams, together.
};

// Waits for the end. kNotFound: no such program in PATH.
Result<FinishedProcess> run_to_end(const std::vector<std::string>& argv);

// The same with both streams going to a file, which a process that stays behind may keep open.
Result<int> run_with_log(const std::vector<std::string>& argv, const std::string& log_path);

// Starts a program with the standard streams of this process and waits for it. Meanwhile the
// calling thread, and those it starts, block the signals that end programs: one that a process sent
// here is passed on, one of the terminal went to both anyway. `started` is called with its process
// number before the wait.
Result<int> run_in_foreground(const std::vector<std::string>& argv,
                              const EnvironmentChanges& changes,
                              const std::function<void(std::int32_t)>& started = {});

// Returns only when it failed.
Error replace_process(const std::vector<std::string>& argv, const EnvironmentChanges& changes);

enum class Stop { kInterrupt, kAsk, kForce };  // SIGINT, SIGTERM, SIGKILL.

// Ends a process and waits for its end, at most `timeout_ms`. Fine when it is gone already.
// kTimedOut: it is still there.
Result<void> stop_process(std::int32_t process_id, Stop how, int timeout_ms);

// The path of the running program itself.
std::string own_program_path();

}  // namespace isthmus::os
