#include "os/program_file.h"

#include <elf.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

namespace isthmus::os {
namespace {

constexpr const char* kDefaultPath = "/usr/local/bin:/usr/bin:/bin";
constexpr std::size_t kMostProgramHeaders = 256;

bool is_file(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);
}

Result<std::string> locate(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    if (!is_file(name)) return fail(ErrorCode::kNotFound, "%s: no such program", name.c_str());
    if (access(name.c_str(), X_OK) != 0) {
      return fail(ErrorCode::kDenied, "%s: not executable", name.c_str());
    }
    return name;
  }
  const char* variable = std::getenv("PATH");
  std::istringstream folders(variable ? variable : kDefaultPath);
  bool seen = false;
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string path = (folder.empty() ? "." : folder) + "/" + name;
    if (!is_file(path)) continue;
    if (access(path.c_str(), X_OK) == 0) return path;
    seen = true;
  }
  if (seen) return fail(ErrorCode::kDenied, "%s: not executable", name.c_str());
  return fail(ErrorCode::kNotFound, "%s: no such program in PATH", name.c_str());
}

// Programs of both word sizes, as both may be on a machine.
template <class Header, class Segment>
bool names_interpreter(std::ifstream& file) {
  Header header{};
  file.seekg(0);
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return false;
  for (std::size_t i = 0; i < header.e_phnum && i < kMostProgramHeaders; ++i) {
    Segment segment{};
    file.seekg(static_cast<std::streamoff>(header.e_phoff + i * sizeof segment));
    if (!file.read(reinterpret_cast<char*>(&segment), sizeof segment)) return false;
    if (segment.p_type == PT_INTERP) return true;
  }
  return false;
}

bool gains_rights(const std::string& path) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) return false;
  if ((status.st_mode & S_ISUID) != 0 && status.st_uid != getuid()) return true;
  if ((status.st_mode & S_ISGID) != 0 && (status.st_mode & S_IXGRP) != 0 &&
      status.st_gid != getgid()) {
    return true;
  }
  return getuid() != 0 && getxattr(path.c_str(), "security.capability", nullptr, 0) > 0;
}

}  // namespace

Result<ProgramFile> find_program(const std::string& name) {
  ProgramFile program{.path = ISTHMUS_TRY(locate(name))};
  program.gains_rights = gains_rights(program.path);
  std::ifstream file(program.path, std::ios::binary);
  unsigned char identity[EI_NIDENT] = {};
  if (!file.read(reinterpret_cast<char*>(identity), sizeof identity)) return program;
  program.is_elf = std::memcmp(identity, ELFMAG, SELFMAG) == 0;
  if (!program.is_elf) return program;
  program.has_interpreter = identity[EI_CLASS] == ELFCLASS64
                                ? names_interpreter<Elf64_Ehdr, Elf64_Phdr>(file)
                                : names_interpreter<Elf32_Ehdr, Elf32_Phdr>(file);
  return program;
}

}  // namespace isthmus::os
