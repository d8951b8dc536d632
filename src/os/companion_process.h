// A companion: another run of this program that is connected to us by a local socket.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

// Where the companion finds its end of the connection.
constexpr int kCompanionFd = 3;

// Starts this program with `arguments`, in a session of its own (what ends our terminal does not
// end it), with nothing open but the standard streams and kCompanionFd. Returns our end. The
// companion is nobody's child: there is no status to collect.
Result<Fd> start_companion(const std::vector<std::string>& arguments);

}  // namespace isthmus::os
