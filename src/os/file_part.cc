#include "os/file_part.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace isthmus::os {

Result<Fd> open_to_read(const std::string& path) {
  Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!file) return fail_errno(errno, "open " + path);
  return file;
}

Result<void> read_exactly(const Fd& file, std::uint64_t offset, void* to, std::size_t bytes) {
  auto* next = static_cast<std::byte*>(to);
  while (bytes > 0) {
    const ssize_t done = pread(file.get(), next, bytes, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) return fail_errno(errno, "read a file");
    if (done == 0) return fail(ErrorCode::kClosed, "a file ends %zu bytes too early", bytes);
    next += done;
    offset += static_cast<std::uint64_t>(done);
    bytes -= static_cast<std::size_t>(done);
  }
  return {};
}

}  // namespace isthmus::os
