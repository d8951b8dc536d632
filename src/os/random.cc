#include "os/random.h"

#include <sys/random.h>

#include <cerrno>

#include "base/assert.h"

namespace isthmus::os {

void fill_random(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = getrandom(bytes.data(), bytes.size(), 0);
    // A kernel without getrandom is older than any this program runs on; a weak key would be
    // worse than no program.
    ISTHMUS_ASSERT(count > 0 || errno == EINTR);
    if (count > 0) bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

std::uint64_t random_u64() {
  std::uint64_t value = 0;
  fill_random(std::as_writable_bytes(std::span(&value, 1)));
  return value;
}

}  // namespace isthmus::os
