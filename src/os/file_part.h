// Reading a part of a file whose size is known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

Result<Fd> open_to_read(const std::string& path);

// All of it or an error; kClosed: the file ends before.
Result<void> read_exactly(const Fd& file, std::uint64_t offset, void* to, std::size_t bytes);

}  // namespace isthmus::os
