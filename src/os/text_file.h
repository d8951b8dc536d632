// Small files and the folders that hold them: state, keys, /proc and /sys.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace isthmus::os {

constexpr std::size_t kMaxTextFileBytes = 16u << 20;

// The whole file. kInvalid: larger than kMaxTextFileBytes.
Result<std::string> read_text_file(const std::string& path);
Result<std::string> read_standard_input();

enum class TextFileAccess { kOwner, kEverybody };

// Replaces the file in one step: a reader sees the old text or the new one.
Result<void> write_text_file(const std::string& path, std::string_view text, TextFileAccess access);

// Makes the folder, and those above it, for its owner alone. kDenied: it exists and is not ours,
// or others may write to it, as somebody else may have made one in /tmp first.
Result<void> make_private_folder(const std::string& path);

// The names in a folder, sorted; none when it does not exist.
std::vector<std::string> list_folder(const std::string& path);

bool path_exists(const std::string& path);
// Where a symbolic link leads; empty: no such link.
std::string link_target(const std::string& path);

// The same place by a name that holds in any folder; nothing needs to be there yet.
Result<std::string> absolute_path(const std::string& path);

// A folder and all in it; fine when there is none.
Result<void> remove_tree(const std::string& path);

// The value, or "" when it is not set.
std::string environment_variable(const std::string& name);

unsigned user_id();

}  // namespace isthmus::os
