// Result<T>: a value, or the Error of somebody else: a peer, a guest, a file, the user, the kernel.
//
// The codes carry the errno values that the verbs ABI returns, so the outermost layer converts by
// a cast and no table has to be kept in step.
#pragma once

#include <cerrno>
#include <cstdarg>
#include <expected>
#include <string>
#include <utility>

namespace isthmus {

enum class ErrorCode : int {
  kInvalid = EINVAL,           // The request makes no sense.
  kNotFound = ENOENT,          // What it names does not exist.
  kExists = EEXIST,            // What it would make exists already.
  kBusy = EBUSY,               // Something still refers to it.
  kNoMemory = ENOMEM,          // A named bound is reached.
  kDenied = EACCES,            // Policy or permission says no.
  kUnsupported = EOPNOTSUPP,   // A valid request for what we do not have.
  kUnreachable = ENETUNREACH,  // No way there.
  kRefused = ECONNREFUSED,     // Nobody answers at that address.
  kTimedOut = ETIMEDOUT,       // No answer in time.
  kClosed = EPIPE,             // The other side is gone.
  kAgain = EAGAIN,             // Nothing now; ask again later.
  kAddressInUse = EADDRINUSE,  // Another user holds the address.
  kAddressNotAvailable = EADDRNOTAVAIL,  // The address is not one of this host's.
  kStale = ESTALE,             // It has changed since the caller looked: read again.
  kIo = EIO,                   // The kernel said something we have no word for.
};

struct Error {
  ErrorCode code;
  std::string message;  // What was tried, what was found, what to do next.
};

// Formats like printf.
[[gnu::format(printf, 2, 3)]] std::unexpected<Error> fail(ErrorCode code, const char* format, ...);

// In English whatever the environment says: it is not even read, for it can be in memory that is
// far, and whoever brings that memory has errors too.
const char* errno_text(int error_number);

// The error of a system call: `what` was tried, `error_number` is the errno it left.
std::unexpected<Error> fail_errno(int error_number, const std::string& what);

template <class T>
class [[nodiscard]] Result : public std::expected<T, Error> {
 public:
  using std::expected<T, Error>::expected;
};

}  // namespace isthmus

// The value of a Result, or return its Error from the calling function.
#define ISTHMUS_TRY(expression)                                                          \
  ({                                                                                     \
    auto isthmus_try_result = (expression);                                              \
    if (!isthmus_try_result) return std::unexpected(std::move(isthmus_try_result.error())); \
    std::move(*isthmus_try_result);                                                      \
  })

// The same for a Result<void>.
#define ISTHMUS_TRY_VOID(expression)                                                     \
  do {                                                                                   \
    auto isthmus_try_result = (expression);                                              \
    if (!isthmus_try_result) return std::unexpected(std::move(isthmus_try_result.error())); \
  } while (false)
