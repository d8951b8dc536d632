#include "os/text_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "os/fd.h"

namespace isthmus::os {
namespace {

Result<std::string> read_all(int fd, const std::string& name) {
  std::string text;
  std::array<char, 16 * 1024> buffer;
  for (;;) {
    const ssize_t bytes = read(fd, buffer.data(), buffer.size());
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) return fail_errno(errno, "reading " + name);
    if (bytes == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(bytes));
    if (text.size() > kMaxTextFileBytes) {
      return fail(ErrorCode::kInvalid, "%s is larger than %zu bytes", name.c_str(),
                  kMaxTextFileBytes);
    }
  }
}

Result<void> write_all(int fd, std::string_view text, const std::string& name) {
  while (!text.empty()) {
    const ssize_t bytes = write(fd, text.data(), text.size());
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes < 0) return fail_errno(errno, "writing " + name);
    text.remove_prefix(static_cast<std::size_t>(bytes));
  }
  return {};
}

}  // namespace

Result<std::string> read_text_file(const std::string& path) {
  const Fd fd{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd) return fail_errno(errno, "opening " + path);
  return read_all(fd.get(), path);
}

Result<std::string> read_standard_input() { return read_all(STDIN_FILENO, "standard input"); }

Result<void> write_text_file(const std::string& path, std::string_view text,
                             TextFileAccess access) {
  const std::string draft = path + ".new";
  unlink(draft.c_str());
  const mode_t mode = access == TextFileAccess::kOwner ? 0600 : 0644;
  const Fd fd{open(draft.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)};
  if (!fd) return fail_errno(errno, "making " + draft);
  ISTHMUS_TRY_VOID(write_all(fd.get(), text, draft));
  if (rename(draft.c_str(), path.c_str()) != 0) return fail_errno(errno, "replacing " + path);
  return {};
}

Result<void> make_private_folder(const std::string& path) {
  const std::string above = std::filesystem::path(path).parent_path();
  struct stat found {};
  if (!above.empty() && stat(above.c_str(), &found) != 0) {
    ISTHMUS_TRY_VOID(make_private_folder(above));
  }
  if (mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    return fail_errno(errno, "making the folder " + path);
  }
  if (lstat(path.c_str(), &found) != 0) return fail_errno(errno, "looking at " + path);
  if (!S_ISDIR(found.st_mode) || found.st_uid != geteuid() || (found.st_mode & 022) != 0) {
    return fail(ErrorCode::kDenied,
                "%s is not a folder that belongs to this user alone; remove it or set "
                "XDG_RUNTIME_DIR to one that does",
                path.c_str());
  }
  return {};
}

std::vector<std::string> list_folder(const std::string& path) {
  std::vector<std::string> names;
  std::error_code error;
  for (std::filesystem::directory_iterator it{path, error}, end; !error && it != end;
       it.increment(error)) {
    names.push_back(it->path().filename());
  }
  std::ranges::sort(names);
  return names;
}

bool path_exists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

std::string link_target(const std::string& path) {
  std::error_code error;
  const auto target = std::filesystem::read_symlink(path, error);
  return error ? std::string{} : target.string();
}

Result<std::string> absolute_path(const std::string& path) {
  std::error_code error;
  const auto absolute = std::filesystem::absolute(path, error);
  if (error) return fail_errno(error.value(), "finding the folder of " + path);
  return absolute.lexically_normal().string();
}

Result<void> remove_tree(const std::string& path) {
  std::error_code error;
  std::filesystem::remove_all(path, error);
  if (error) return fail_errno(error.value(), "removing " + path);
  return {};
}

std::string environment_variable(const std::string& name) {
  const char* value = std::getenv(name.c_str());
  return value != nullptr ? value : "";
}

unsigned user_id() { return geteuid(); }

}  // namespace isthmus::os
