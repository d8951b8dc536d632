#include "base/result.h"

#include <cstdio>
#include <cstring>

namespace isthmus {
namespace {

ErrorCode code_of(int error_number) {
  switch (error_number) {
    case EINVAL:
    case ENOENT:
    case EEXIST:
    case EBUSY:
    case ENOMEM:
    case EACCES:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case ECONNREFUSED:
    case ETIMEDOUT:
    case EPIPE:
    case EAGAIN:
    case EADDRINUSE:
      return static_cast<ErrorCode>(error_number);
    case EPERM:
      return ErrorCode::kDenied;
    case ECONNRESET:
    case ENOTCONN:
      return ErrorCode::kClosed;
    case EHOSTUNREACH:
      return ErrorCode::kUnreachable;
    default:
      return ErrorCode::kIo;
  }
}

}  // namespace

std::unexpected<Error> fail(ErrorCode code, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  return std::unexpected(Error{code, text});
}

const char* errno_text(int error_number) {
  const char* const text = strerrordesc_np(error_number);
  return text != nullptr ? text : "unknown error";
}

std::unexpected<Error> fail_errno(int error_number, const std::string& what) {
  return std::unexpected(Error{code_of(error_number), what + ": " + errno_text(error_number)});
}

}  // namespace isthmus
