// The options of an rsocket: remembered, so that what is set can be read; few of them act.
//
// Threading: the socket's lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <sys/socket.h>

#include "base/result.h"

namespace isthmus::rdmacm {

struct SocketOptions {
  bool reuse_address = false;
  bool keep_alive = false;
  bool out_of_band_inline = false;
  bool linger = true;
  bool no_delay = false;
  bool v6_only = false;
  int type_of_service = 0;
  int keep_alive_seconds = 7200;
  int maximum_segment = 2048;
  std::uint32_t send_bytes = 1u << 17;
  std::uint32_t receive_bytes = 1u << 17;
  std::uint32_t send_queue = 384;
  std::uint32_t receive_queue = 384;
  std::uint32_t inline_bytes = 64;
  std::uint32_t iomap_count = 0;
};

// kUnsupported (ENOTSUP): an option we do not know. `opened`: the queues are made, sizes stay.
Result<void> set_option(SocketOptions& options, int level, int name,
                        std::span<const std::byte> value, bool opened);
// Bytes written to `value`. SO_ERROR and TCP_INFO are the socket's own business.
Result<socklen_t> get_option(const SocketOptions& options, int level, int name,
                             std::span<std::byte> value);

}  // namespace isthmus::rdmacm
