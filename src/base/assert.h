// ISTHMUS_ASSERT: our own promises, checked in every build.
//
// A failed assertion means that our code is wrong; carrying on would be worse than stopping. Bytes
// from a guest, a peer, a file or a user never reach one: they are checked by Result.
#pragma once

namespace isthmus {

// Prints the expression and its place to standard error and aborts.
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);

}  // namespace isthmus

#define ISTHMUS_ASSERT(x) \
  (__builtin_expect(!(x), 0) ? ::isthmus::assertion_failed(#x, __FILE__, __LINE__) : void(0))
