// The runtime's own descriptors: the program does not know them, so what it closes without looking
// (all above a number, in a loop, or by a copy over it) must not be they. Far memory would be lost.
//
// They have high numbers (os/low_descriptors.h), and closing them fails as it does for numbers that
// are not open. A program that starts is rid of them: they are closed by exec.
//
// Threading: protect_descriptors() before there are other threads of the program, then any.
#pragma once

#include <span>

namespace isthmus::preload {

// Those open now that are not among `before`, which is in order.
void protect_descriptors(std::span<const int> before);

}  // namespace isthmus::preload
