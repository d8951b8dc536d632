// Processors: where a thread runs. Waking a thread on another processor costs tens of microseconds
// on a virtual machine, on the same one 1.7.
#pragma once

#include <cstdint>
#include <optional>

namespace isthmus::os {

// Where that thread of this process ran last. About 5 µs.
std::optional<std::uint32_t> processor_of_thread(std::uint32_t thread_id);

// From now on this thread runs there only. False: not allowed.
bool stay_on_processor(std::uint32_t processor);

std::uint32_t thread_id();

}  // namespace isthmus::os
