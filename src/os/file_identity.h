// Which file a descriptor is open on, whatever its number and name.
#pragma once

#include <compare>
#include <cstdint>

#include "base/result.h"

namespace isthmus::os {

struct FileIdentity {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  friend auto operator<=>(const FileIdentity&, const FileIdentity&) = default;
};

Result<FileIdentity> file_identity(int fd);

}  // namespace isthmus::os
