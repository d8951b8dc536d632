// Waiting for a few descriptors once, and whether a descriptor blocks: for threads that are not
// ours, which wait inside a library call.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"

namespace isthmus::os {

constexpr std::size_t kMaxPolledDescriptors = 8;

// Bit i: fds[i] is readable or closed. 0 after `timeout_ns` (kWaitForEver of epoll.h: never). A
// signal handler that runs meanwhile does not end the wait. A negative descriptor is skipped.
std::uint32_t wait_readable(std::span<const int> fds, std::uint64_t timeout_ns);

// O_NONBLOCK of the open file. A program sets it on descriptors we give it, and means it.
bool is_blocking(int fd);
Result<void> set_blocking(int fd);
Result<void> set_non_blocking(int fd);

}  // namespace isthmus::os
