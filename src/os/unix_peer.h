// Who listens at a local socket: asked by connecting and hanging up again.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace isthmus::os {

enum class UnixSocketType { kStream, kSeqPacket };

// The process that listens at `path`. kNotFound: no such socket; kRefused: a socket nobody listens
// at, left behind by one that was killed; kDenied: it is another user's.
Result<std::int32_t> unix_peer_process(const std::string& path, UnixSocketType type);

}  // namespace isthmus::os
