// The command line of `isthmus`, in one place: what CLI11 parses, and the description of it that
// help, man pages and completion are made from.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "apps/isthmus_options.h"

namespace isthmus::apps {

enum class ValueKind { kNone, kText, kFile, kFolder, kHost, kProgram, kChoice };

struct OptionDescription {
  std::vector<std::string> names;  // "-w", "--write"; empty for a positional argument.
  std::string value;               // "FILE"; empty for a flag.
  ValueKind kind = ValueKind::kNone;
  std::vector<std::string> choices;
  std::string help;
  bool required = false;
  bool repeatable = false;
};

struct CommandDescription {
  std::string name;
  std::string summary;      // One line.
  std::string description;  // Paragraphs.
  std::string examples;     // Lines, as in the help.
  std::vector<OptionDescription> options;
  std::vector<OptionDescription> arguments;
  std::vector<CommandDescription> commands;
};

CommandDescription describe_command_line();

// What the words of a command line ask for.
struct ParsedCommand {
  int exit_status = kExitDone;             // When there is nothing to run.
  std::string output;                      // Help, or what is wrong with the words.
  std::function<CommandResult()> command;  // Empty: print output and end.
};

ParsedCommand parse_command_line(std::vector<std::string> words);

}  // namespace isthmus::apps
