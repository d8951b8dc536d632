// isthmus: what a person types. Parses the command line, runs the one command, tells the outcome.
#include <fmt/format.h>

#include <cstdio>

#include "apps/isthmus_command_line.h"
#include "apps/isthmus_session.h"

int main(int argc, char** argv) {
  using namespace isthmus::apps;
  const ParsedCommand parsed = parse_command_line({argv + 1, argv + argc});
  if (!parsed.command) {
    fmt::print(parsed.exit_status == kExitDone ? stdout : stderr, "{}", parsed.output);
    return parsed.exit_status;
  }
  const CommandResult result = parsed.command();
  if (!result) {
    std::fflush(stdout);
    fmt::print(stderr, "isthmus: {}\n", result.error().message);
    return exit_status_of(result.error());
  }
  return *result;
}
