// Whether a thread of this process waits for a page that a userfaultfd is to bring.
#pragma once

#include <cstdint>

namespace isthmus::os {

// By what the kernel says of the place where the thread sleeps; false where it does not say. About
// 10 µs; allocates nothing.
bool waits_for_fault(std::uint32_t thread_id);

}  // namespace isthmus::os
