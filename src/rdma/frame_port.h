// FramePort: where whole Ethernet frames leave and arrive. An interface, or a test.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/result.h"

namespace isthmus::rdma {

// A frame in pieces: from its destination address to before its check sequence.
using OutgoingFrame = std::span<const iovec>;
using IncomingFrame = std::span<const std::byte>;

class FramePort {
 public:
  virtual ~FramePort() = default;

  // The longest frame that can leave, and that one on the wire can be.
  virtual std::uint32_t max_frame_bytes() const = 0;

  // May lose any of them, as a network may. The bytes are borrowed until return.
  virtual void send(std::span<const OutgoingFrame> frames) = 0;

  // Frames arrive from listen() to ignore(). To listen again while listening changes nothing.
  virtual Result<void> listen() = 0;
  virtual void ignore() = 0;

  // What has arrived, at most one batch; empty when nothing has. Valid until the next call.
  virtual std::span<const IncomingFrame> receive() = 0;
};

}  // namespace isthmus::rdma
