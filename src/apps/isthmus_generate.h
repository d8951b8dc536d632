// Help, man pages, shell completion and docs/commands.md from the description of the command line.
#pragma once

#include <string>

#include "apps/isthmus_description.h"
#include "apps/isthmus_options.h"

namespace isthmus::apps {

// `daemon` has man pages and a place in docs/commands.md; its completion is not worth a file.
CommandResult generate(const CommandDescription& root, const CommandDescription& daemon,
                       const GenerateOptions& options);

// One page for each command: "isthmus-lab-up.1", troff with the man macros.
struct ManPage {
  std::string name;
  std::string text;
};
enum class ManSection { kCommands = 1, kDaemons = 8 };
std::vector<ManPage> man_pages(const CommandDescription& root, ManSection section);
// What --help prints of the command at `path`, such as {"isthmus", "lab", "up"}.
std::string help_text(const CommandDescription& root, const std::vector<std::string>& path);
std::string bash_completion(const CommandDescription& root);
std::string zsh_completion(const CommandDescription& root);
// The whole of docs/commands.md.
std::string markdown(const std::vector<CommandDescription>& roots);

}  // namespace isthmus::apps
