// From Result to what the C functions return: 0 or -1 with errno.
#pragma once

#include <cerrno>

#include "base/log.h"
#include "base/result.h"

namespace isthmus::rdmacm {

inline int failed(int error_number) {
  errno = error_number;
  return -1;
}

inline int failed(const Error& error) {
  ISTHMUS_LOG(kDebug, "rdmacm: %s", error.message.c_str());
  return failed(static_cast<int>(error.code));
}

template <class T>
int outcome(const Result<T>& result) {
  return result ? 0 : failed(result.error());
}

}  // namespace isthmus::rdmacm
