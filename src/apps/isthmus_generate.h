// Help, man pages, shell completion and docs/commands.md from the description of the command line.
#pragma once

#include <string>

#include "apps/isthmus_command_line.h"

namespace isthmus::apps {

CommandResult generate(const CommandDescription& root, const GenerateOptions& options);

// One page for each command: "isthmus-lab-up.1", troff with the man macros.
struct ManPage {
  std::string name;
  std::string text;
};
std::vector<ManPage> man_pages(const CommandDescription& root);
// What --help prints of the command at `path`, such as {"isthmus", "lab", "up"}.
std::string help_text(const CommandDescription& root, const std::vector<std::string>& path);
std::string bash_completion(const CommandDescription& root);
std::string zsh_completion(const CommandDescription& root);
std::string markdown(const CommandDescription& root);

}  // namespace isthmus::apps
