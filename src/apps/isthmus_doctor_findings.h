// What doctor makes of the facts: pure, so that hosts we do not have can be judged in a test.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "os/host_probe.h"

namespace isthmus::apps {

enum class FindingLevel { kOk, kWarn, kMissing };

struct Finding {
  FindingLevel level = FindingLevel::kOk;
  std::string subject;  // "UDP port 4791"
  std::string state;    // What was found, and what it brings or costs.
  std::string advice;   // What to do; empty when it is fine.
};

struct DoctorFacts {
  os::HostFacts host;
  std::string socket;                 // Where a daemon was looked for.
  std::optional<std::string> daemon;  // Its version and process id, when one answers.
  std::string daemon_problem;         // Why none does.
  bool daemon_denied = false;         // One is there, and not for us.
  std::int32_t daemon_process = 0;
  std::vector<std::string> libraries;  // Drop-in libraries found.
  std::vector<std::string> libraries_missing;
};

std::vector<Finding> judge(const DoctorFacts& facts);

const char* level_name(FindingLevel level);

}  // namespace isthmus::apps
