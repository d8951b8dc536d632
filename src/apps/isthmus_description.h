// A command line described: what help, man pages, completion and docs/commands.md are made from.
//
// Read out of the CLI11 definitions that also parse, so the two cannot say different things.
#pragma once

#include <string>
#include <vector>

namespace CLI {
class App;
}

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

CommandDescription describe(const CLI::App& app);

}  // namespace isthmus::apps
