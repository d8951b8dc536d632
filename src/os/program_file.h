// The file of a program that is about to be run: where it is, and whether libraries can be put
// before it.
#pragma once

#include <string>

#include "base/result.h"

namespace isthmus::os {

struct ProgramFile {
  std::string path;
  bool is_elf = false;
  bool has_interpreter = false;  // ELF: ld.so loads it. Without, it is statically linked.
  bool gains_rights = false;     // Set-user-id, set-group-id or capabilities that we do not have.
};

// As the shell finds it: a name with a slash is a path, another one is looked up in PATH.
// kNotFound; kDenied: found, but not executable.
Result<ProgramFile> find_program(const std::string& name);

}  // namespace isthmus::os
