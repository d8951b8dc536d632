// The command line of `isthmus`, in one place.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "apps/isthmus_description.h"
#include "apps/isthmus_options.h"

namespace isthmus::apps {

CommandDescription describe_command_line();

// What the words of a command line ask for.
struct ParsedCommand {
  int exit_status = kExitDone;             // When there is nothing to run.
  std::string output;                      // Help, or what is wrong with the words.
  std::function<CommandResult()> command;  // Empty: print output and end.
};

ParsedCommand parse_command_line(std::vector<std::string> words);

}  // namespace isthmus::apps
