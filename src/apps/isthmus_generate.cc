#include "apps/isthmus_generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "os/text_file.h"

namespace isthmus::apps {
namespace {

using Path = std::vector<std::string>;  // "isthmus", "lab", "up"

std::string joined(const std::vector<std::string>& words, const std::string& between) {
  std::string text;
  for (const auto& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

// Visits the root and all commands below it.
template <class Visit>
void for_each(const CommandDescription& command, Path path, const Visit& visit) {
  path.push_back(command.name);
  visit(command, path);
  for (const auto& child : command.commands) for_each(child, path, visit);
}

std::string synopsis(const CommandDescription& command, const Path& path) {
  std::string text = joined(path, " ");
  if (!command.options.empty()) text += " [OPTIONS]";
  if (!command.commands.empty()) text += " COMMAND ...";
  for (const auto& argument : command.arguments) {
    if (argument.kind == ValueKind::kProgram) {
      text += " [--] COMMAND [ARGUMENTS...]";
    } else if (argument.kind == ValueKind::kChoice) {
      text += " " + joined(argument.choices, "|");
    } else {
      text += " " + argument.value;
    }
  }
  return text;
}

std::string heading_of(const OptionDescription& option) {
  std::string text = option.names.empty() ? option.value : joined(option.names, ", ");
  if (!option.names.empty() && option.kind == ValueKind::kChoice) {
    text += " " + joined(option.choices, "|");
  } else if (!option.names.empty() && !option.value.empty()) {
    text += " " + option.value;
  }
  return text;
}

// --- help ----------------------------------------------------------------------------------------

constexpr std::size_t kHelpColumns = 80;
constexpr std::size_t kHelpIndent = 26;

// Words of a text in lines of at most kHelpColumns; all but the first line begin with `indent`
// spaces. `column` is where the first begins.
std::string wrapped(const std::string& text, std::size_t indent, std::size_t column) {
  std::string out;
  std::istringstream words{text};
  bool line_start = true;
  for (std::string word; words >> word;) {
    if (!line_start && column + 1 + word.size() > kHelpColumns) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
      line_start = true;
    }
    out += (line_start ? "" : " ") + word;
    column += word.size() + (line_start ? 0 : 1);
    line_start = false;
  }
  return out;
}

std::string help_line(const std::string& heading, const std::string& text) {
  std::string line = "  " + heading;
  if (line.size() + 2 > kHelpIndent) {
    line += "\n" + std::string(kHelpIndent, ' ');
  } else {
    line += std::string(kHelpIndent - line.size(), ' ');
  }
  return line + wrapped(text, kHelpIndent, kHelpIndent) + "\n";
}

// --- man -----------------------------------------------------------------------------------------

// Text that troff prints as it stands.
std::string troff(const std::string& text) {
  std::string out;
  bool line_start = true;
  for (const char c : text) {
    if (line_start && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') {
      out += "\\e";
    } else if (c == '-') {
      out += "\\-";
    } else {
      out += c;
    }
    line_start = c == '\n';
  }
  return out;
}

// Blank lines part paragraphs.
std::string troff_paragraphs(const std::string& text) {
  std::string out;
  std::istringstream lines{text};
  for (std::string line; std::getline(lines, line);) {
    out += line.empty() ? ".PP\n" : troff(line) + "\n";
  }
  return out;
}

std::string troff_options(const std::vector<OptionDescription>& options) {
  std::string out;
  for (const auto& option : options) {
    out += ".TP\n.B " + troff(heading_of(option)) + "\n" + troff(option.help) +
           (option.help.ends_with('.') ? "\n" : ".\n");
  }
  return out;
}

constexpr const char* kExitStatusSection =
    ".SH EXIT STATUS\n"
    ".TP\n.B 0\nDone.\n"
    ".TP\n.B 1\nTried and failed, or a check said no.\n"
    ".TP\n.B 2\nThe command line makes no sense.\n"
    ".TP\n.B 3\nNo isthmusd answers at the socket.\n"
    ".TP\n.B 4\nThe daemon or the kernel does not let this user.\n"
    ".PP\n"
    "\\fBisthmus run\\fR and \\fBisthmus lab exec\\fR end with the status of the program: 126 when "
    "it\ncannot be run, 127 when there is none of that name, 128 and the number of the signal "
    "that\n"
    "ended it.\n";

constexpr const char* kEnvironmentSection =
    ".SH ENVIRONMENT\n"
    ".TP\n.B ISTHMUS_SOCKET\nThe attach socket of the daemon. Without it:\n"
    "$XDG_RUNTIME_DIR/isthmus/isthmusd.sock, /run/isthmus/isthmusd.sock where that exists,\n"
    "or /tmp/isthmus\\-UID/isthmusd.sock.\n"
    ".TP\n.B ISTHMUS_CHANNEL\n\\fBroce\\fR: a program uses RoCE packets even to its neighbours.\n"
    ".TP\n.B ISTHMUS_LOG_LEVEL\nerror, warning (default), info or debug.\n";

ManPage man_page(const CommandDescription& command, const Path& path, const Path& pages,
                 ManSection section) {
  const std::string name = joined(path, "-");
  std::string title = name;
  std::ranges::transform(title, title.begin(),
                         [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  const int number = static_cast<int>(section);
  std::string text = fmt::format(".TH {} {} \"\" \"Isthmus {}\" \"Isthmus\"\n", troff(title),
                                 number, ISTHMUS_VERSION);
  text += ".SH NAME\n" + troff(name) + " \\- " + troff(command.summary) + "\n";
  text += ".SH SYNOPSIS\n.B " + troff(synopsis(command, path)) + "\n";
  text += ".SH DESCRIPTION\n" + troff_paragraphs(command.description);
  if (!command.commands.empty()) {
    text += ".SH COMMANDS\n";
    for (const auto& child : command.commands) {
      text += ".TP\n.B " + troff(child.name) + "\n" + troff(child.summary) + ".\n";
    }
  }
  if (!command.arguments.empty()) text += ".SH ARGUMENTS\n" + troff_options(command.arguments);
  if (!command.options.empty()) text += ".SH OPTIONS\n" + troff_options(command.options);
  if (path.size() == 1 && section == ManSection::kCommands) {
    text += std::string(kExitStatusSection) + kEnvironmentSection;
  }
  if (!command.examples.empty()) {
    text += ".SH EXAMPLES\n.nf\n" + troff(command.examples) + ".fi\n";
  }
  std::string others;
  for (const auto& page : pages) {
    if (page == name || (path.size() > 1 && !page.starts_with(joined({path[0], path[1]}, "-")) &&
                         page != path[0])) {
      continue;
    }
    others += std::string(others.empty() ? ".BR " : ",\n.BR ") + troff(page) + " (1)";
  }
  if (section == ManSection::kDaemons) others = ".BR isthmus (1)";
  if (path.size() == 1 && section == ManSection::kCommands) others += ",\n.BR isthmusd (8)";
  if (!others.empty()) text += ".SH SEE ALSO\n" + others + "\n";
  return {.name = fmt::format("{}.{}", name, number), .text = text};
}

// --- bash ----------------------------------------------------------------------------------------

// A word in single quotes of a shell.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

constexpr const char* kListHosts = "isthmus lab status 2>/dev/null | awk '/^h[0-9]+ /{ print $1 }'";

// The bash statement that offers the values of an option or argument.
std::string bash_values(const OptionDescription& option) {
  switch (option.kind) {
    case ValueKind::kChoice:
      return "COMPREPLY=($(compgen -W " + quoted(joined(option.choices, " ")) + " -- \"$cur\"))";
    case ValueKind::kFile:
      return "compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- \"$cur\"))";
    case ValueKind::kFolder:
      return "compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- \"$cur\"))";
    case ValueKind::kHost:
      return "COMPREPLY=($(compgen -W \"$(" + std::string(kListHosts) + ")\" -- \"$cur\"))";
    case ValueKind::kProgram:
      return "COMPREPLY=($(compgen -c -- \"$cur\"))";
    case ValueKind::kNone:
    case ValueKind::kText:
      return "COMPREPLY=()";
  }
  return "";
}

std::string bash_case(const CommandDescription& command, const Path& path) {
  std::string text = "    " + quoted(joined(path, " ")) + ")\n";
  std::string values;
  Path words;
  for (const auto& option : command.options) {
    words.insert(words.end(), option.names.begin(), option.names.end());
    if (option.kind == ValueKind::kNone) continue;
    values +=
        "        " + joined(option.names, " | ") + ") " + bash_values(option) + "; return ;;\n";
  }
  if (!values.empty()) text += "      case $prev in\n" + values + "      esac\n";
  text += "      if [[ $cur == -* ]]; then\n        COMPREPLY=($(compgen -W " +
          quoted(joined(words, " ")) + " -- \"$cur\"))\n";
  if (!command.commands.empty()) {
    Path names;
    for (const auto& child : command.commands) names.push_back(child.name);
    text += "      else\n        COMPREPLY=($(compgen -W " + quoted(joined(names, " ")) +
            " -- \"$cur\"))\n";
  } else if (!command.arguments.empty()) {
    text += "      else\n        case $given in\n";
    for (std::size_t i = 0; i < command.arguments.size(); ++i) {
      const bool last = i + 1 == command.arguments.size();
      text += fmt::format("          {}) {} ;;\n", last ? "*" : std::to_string(i),
                          bash_values(command.arguments[i]));
    }
    text += "        esac\n";
  }
  return text + "      fi ;;\n";
}

// --- zsh -----------------------------------------------------------------------------------------

std::string zsh_function(const Path& path) { return "_" + joined(path, "_"); }

// Inside [...] of an _arguments specification.
std::string zsh_text(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '[' || c == ']' || c == ':' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

std::string zsh_action(const OptionDescription& option) {
  switch (option.kind) {
    case ValueKind::kChoice:
      return "(" + joined(option.choices, " ") + ")";
    case ValueKind::kFile:
      return "_files";
    case ValueKind::kFolder:
      return "_files -/";
    case ValueKind::kHost:
      return "_isthmus_hosts";
    case ValueKind::kProgram:
      return "_normal";
    case ValueKind::kNone:
    case ValueKind::kText:
      return " ";
  }
  return "";
}

std::string zsh_command(const CommandDescription& command, const Path& path) {
  std::string text = zsh_function(path) + "() {\n";
  const bool has_commands = !command.commands.empty();
  if (has_commands) text += "  local context state state_descr line\n  typeset -A opt_args\n";
  text += has_commands ? "  _arguments -C" : "  _arguments";
  for (const auto& option : command.options) {
    for (const auto& name : option.names) {
      std::string spec =
          std::string(option.repeatable ? "*" : "") + name + "[" + zsh_text(option.help) + "]";
      if (option.kind != ValueKind::kNone) spec += ":" + option.value + ":" + zsh_action(option);
      text += " \\\n    " + quoted(spec);
    }
  }
  for (std::size_t i = 0; i < command.arguments.size(); ++i) {
    const auto& argument = command.arguments[i];
    const bool program = argument.kind == ValueKind::kProgram;
    text += " \\\n    " + quoted((program ? "*::" : std::to_string(i + 1) + ":") + argument.value +
                                 ":" + zsh_action(argument));
  }
  if (!has_commands) return text + "\n}\n\n";
  text +=
      " \\\n    '1:command:->command' \\\n    '*::argument:->argument'\n  case $state in\n"
      "    command)\n      local -a commands=(\n";
  for (const auto& child : command.commands) {
    text += "        " + quoted(child.name + ":" + child.summary) + "\n";
  }
  text += "      )\n      _describe command commands ;;\n    argument)\n      case $words[1] in\n";
  for (const auto& child : command.commands) {
    Path below = path;
    below.push_back(child.name);
    text += "        " + child.name + ") " + zsh_function(below) + " ;;\n";
  }
  return text + "      esac ;;\n  esac\n}\n\n";
}

}  // namespace

std::vector<ManPage> man_pages(const CommandDescription& root, ManSection section) {
  Path names;
  for_each(root, {}, [&](const auto&, const Path& path) { names.push_back(joined(path, "-")); });
  std::vector<ManPage> pages;
  for_each(root, {}, [&](const auto& command, const Path& path) {
    pages.push_back(man_page(command, path, names, section));
  });
  return pages;
}

std::string help_text(const CommandDescription& root, const std::vector<std::string>& path) {
  const CommandDescription* command = &root;
  for (std::size_t i = 1; i < path.size(); ++i) {
    const auto found = std::ranges::find(command->commands, path[i], &CommandDescription::name);
    if (found == command->commands.end()) break;  // A hidden one; its parent says most.
    command = &*found;
  }
  std::string text = command->summary + "\n\nUsage: " + synopsis(*command, path) + "\n";
  std::istringstream paragraphs{command->description};
  std::string line;
  std::getline(paragraphs, line);  // The summary again.
  while (std::getline(paragraphs, line)) {
    if (!line.empty()) text += "\n" + wrapped(line, 0, 0) + "\n";
  }
  if (!command->commands.empty()) text += "\nCommands:\n";
  for (const auto& child : command->commands) text += help_line(child.name, child.summary);
  if (!command->arguments.empty()) text += "\nArguments:\n";
  for (const auto& argument : command->arguments) {
    text += help_line(heading_of(argument), argument.help);
  }
  if (!command->options.empty()) text += "\nOptions:\n";
  for (const auto& option : command->options) text += help_line(heading_of(option), option.help);
  if (!command->examples.empty()) text += "\nExamples:\n" + command->examples;
  return text;
}

std::string bash_completion(const CommandDescription& root) {
  std::string known;
  std::string valued;
  std::string cases;
  for_each(root, {}, [&](const CommandDescription& command, const Path& path) {
    if (path.size() > 1) known += (known.empty() ? "" : " | ") + quoted(joined(path, " "));
    for (const auto& option : command.options) {
      if (option.kind != ValueKind::kNone) valued += " " + joined(option.names, " ");
    }
    cases += bash_case(command, path);
  });
  return "# bash completion of isthmus, generated by `isthmus _generate bash`.\n"
         "_isthmus() {\n"
         "  local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}\n"
         "  local path=isthmus given=0 valued=" +
         quoted(valued + " ") +
         " word i\n"
         "  COMPREPLY=()\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    word=${COMP_WORDS[i]}\n"
         "    if [[ $word == -- ]]; then\n"
         "      if declare -F _command_offset >/dev/null; then\n"
         "        _command_offset $((i + 1))\n"
         "      else\n"
         "        COMPREPLY=($(compgen -c -f -- \"$cur\"))\n"
         "      fi\n"
         "      return\n"
         "    fi\n"
         "    case \"$path $word\" in\n      " +
         known +
         ") path=\"$path $word\" ;;\n"
         "      *' -'*) [[ $valued == *\" $word \"* ]] && ((i++)) ;;\n"
         "      *) ((given++)) ;;\n"
         "    esac\n"
         "  done\n"
         "  case $path in\n" +
         cases +
         "  esac\n"
         "}\n"
         "complete -F _isthmus isthmus\n";
}

std::string zsh_completion(const CommandDescription& root) {
  std::string text =
      "#compdef isthmus\n"
      "# zsh completion of isthmus, generated by `isthmus _generate zsh`.\n\n"
      "_isthmus_hosts() {\n  local -a hosts=($(" +
      std::string(kListHosts) + "))\n  compadd -a hosts\n}\n\n";
  for_each(root, {}, [&](const CommandDescription& command, const Path& path) {
    text += zsh_command(command, path);
  });
  return text + "_isthmus \"$@\"\n";
}

std::string markdown(const std::vector<CommandDescription>& roots) {
  std::string text =
      "# Commands\n\nMade by `isthmus _generate markdown` from the definitions that also make the "
      "help, the man\npages and the completion.\n";
  const auto add = [&](const CommandDescription& command, const Path& path) {
    text += "\n## " + joined(path, " ") + "\n\n" + command.description + "\n\n```\n" +
            synopsis(command, path) + "\n```\n";
    if (!command.commands.empty()) text += "\n| command | does |\n|---|---|\n";
    for (const auto& child : command.commands) {
      text += "| " + child.name + " | " + child.summary + " |\n";
    }
    const bool has_words = !command.options.empty() || !command.arguments.empty();
    if (has_words) text += "\n| option | meaning |\n|---|---|\n";
    for (const auto* list : {&command.arguments, &command.options}) {
      for (const auto& option : *list) {
        std::string heading = heading_of(option);
        for (auto at = heading.find('|'); at != std::string::npos; at = heading.find('|', at + 2)) {
          heading.insert(at, "\\");
        }
        text += "| `" + heading + "` | " + option.help + " |\n";
      }
    }
    if (!command.examples.empty()) text += "\nExamples:\n\n```\n" + command.examples + "```\n";
  };
  for (const auto& root : roots) for_each(root, {}, add);
  return text;
}

CommandResult generate(const CommandDescription& root, const CommandDescription& daemon,
                       const GenerateOptions& options) {
  if (options.what == "bash") {
    fmt::print("{}", bash_completion(root));
  } else if (options.what == "zsh") {
    fmt::print("{}", zsh_completion(root));
  } else if (options.what == "markdown") {
    fmt::print("{}", markdown({root, daemon}));
  } else {
    if (options.folder.empty()) {
      return fail(ErrorCode::kInvalid, "say where the man pages go: isthmus _generate man FOLDER");
    }
    auto pages = man_pages(root, ManSection::kCommands);
    for (auto& page : man_pages(daemon, ManSection::kDaemons)) pages.push_back(std::move(page));
    for (const auto& page : pages) {
      ISTHMUS_TRY_VOID(os::write_text_file(options.folder + "/" + page.name, page.text,
                                           os::TextFileAccess::kEverybody));
    }
  }
  return kExitDone;
}

}  // namespace isthmus::apps
