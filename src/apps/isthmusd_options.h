// The command line of isthmusd.
#pragma once

#include <string>
#include <vector>

#include "apps/isthmus_description.h"
#include "wire/ip.h"

namespace isthmus::apps {

struct DaemonOptions {
  std::string socket;  // Never empty after parsing.
  bool socket_given = false;
  std::vector<wire::IpAddress> addresses;  // Empty: all of the host.
  std::string policy_file;
  std::string cluster_key_file;
  std::string label;       // Of instances that do not name themselves; empty: the host's name.
  bool is_private = false;
  bool detach = false;
  bool for_everybody = false;
};

struct ParsedDaemonLine {
  DaemonOptions options;
  bool run = false;       // False: print `output` and end.
  int exit_status = 0;
  std::string output;
};

CommandDescription describe_daemon_line();

ParsedDaemonLine parse_daemon_line(int argc, const char* const* argv);

}  // namespace isthmus::apps
