#include "apps/isthmus_description.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <sstream>

namespace isthmus::apps {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::istringstream in{text};
  for (std::string part; std::getline(in, part, separator);) parts.push_back(part);
  return parts;
}

ValueKind kind_of(const std::string& value) {
  if (value == "FILE") return ValueKind::kFile;
  if (value == "HOST") return ValueKind::kHost;
  return ValueKind::kText;
}

OptionDescription describe(const CLI::Option& option) {
  OptionDescription made;
  for (const auto& name : option.get_snames()) made.names.push_back("-" + name);
  for (const auto& name : option.get_lnames()) made.names.push_back("--" + name);
  made.help = option.get_description();
  made.required = option.get_required();
  made.repeatable = option.get_items_expected_max() > 1;
  if (option.get_items_expected_max() == 0) return made;
  // CLI11 writes TYPE:{one,two} or TYPE:CHECK.
  const std::string type = option.get_type_name();
  const auto brace = type.find('{');
  if (brace != std::string::npos) {
    made.choices = split(type.substr(brace + 1, type.rfind('}') - brace - 1), ',');
    made.kind = ValueKind::kChoice;
    made.value = option.get_positional() ? option.get_name() : made.names.back().substr(2);
    std::ranges::transform(made.value, made.value.begin(),
                           [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
    return made;
  }
  made.value = type.substr(0, type.find(':'));
  made.kind = kind_of(made.value);
  return made;
}

}  // namespace

CommandDescription describe(const CLI::App& app) {
  CommandDescription made;
  made.name = app.get_name();
  made.description = app.get_description();
  // "Show this." as the first paragraph, "Show this" in a list.
  made.summary = made.description.substr(0, made.description.find('\n'));
  if (made.summary.ends_with('.')) made.summary.pop_back();
  made.examples = app.get_footer();
  for (const CLI::Option* option : app.get_options()) {
    (option->get_positional() ? made.arguments : made.options).push_back(describe(*option));
  }
  if (app.get_prefix_command()) {
    made.arguments.push_back({.value = "COMMAND",
                              .kind = ValueKind::kProgram,
                              .help = "The program and its arguments, best after --",
                              .required = true,
                              .repeatable = true});
  }
  for (const CLI::App* command : app.get_subcommands({})) {
    if (!command->get_group().empty()) made.commands.push_back(describe(*command));
  }
  return made;
}

}  // namespace isthmus::apps
