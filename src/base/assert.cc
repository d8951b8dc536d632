#include "base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace isthmus {

void assertion_failed(const char* expression, const char* file, int line) {
  std::fprintf(stderr, "isthmus: assertion failed at %s:%d: %s\n", file, line, expression);
  std::abort();
}

}  // namespace isthmus
