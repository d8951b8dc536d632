// Failures with the errno value that the ABI promises, whichever it is: programs tell ENODEV from
// EIO, where the codes of the rest of the project know no difference.
#pragma once

#include <string>

#include "base/result.h"

namespace isthmus::rdmacm {

inline std::unexpected<Error> fail_with(int error_number, const std::string& what) {
  return std::unexpected(Error{.code = static_cast<ErrorCode>(error_number),
                               .message = what + ": " + errno_text(error_number)});
}

}  // namespace isthmus::rdmacm
