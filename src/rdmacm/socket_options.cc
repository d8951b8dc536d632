#include "rdmacm/socket_options.h"

#include <netinet/in.h>
#include <netinet/tcp.h>

#include <algorithm>
#include <cstring>

#include "rdmacm/abi.h"
#include "rdmacm/stream_wire.h"

namespace isthmus::rdmacm {
namespace {

constexpr std::uint32_t kLargestQueue = 0xfffe;  // Credits are 16 bits.
constexpr std::uint32_t kSmallestBuffer = 4096;

std::unexpected<Error> unknown_option(int level, int name) {
  return fail(ErrorCode::kUnsupported, "rsockets have no option %d of level %d", name, level);
}

template <class T>
Result<socklen_t> put(std::span<std::byte> value, const T& what) {
  if (value.size() < sizeof what) return fail(ErrorCode::kInvalid, "no room for the option");
  std::memcpy(value.data(), &what, sizeof what);
  return static_cast<socklen_t>(sizeof what);
}

// The kernel doubles what programs ask for; so do the rsockets they know.
std::uint32_t buffer_bytes(int asked) {
  constexpr std::uint32_t kLargestBuffer = 1u << 28;
  const auto doubled = static_cast<std::uint64_t>(static_cast<std::uint32_t>(asked)) * 2;
  return static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(doubled, kSmallestBuffer, kLargestBuffer));
}

Result<void> set_socket_option(SocketOptions& options, int name, int number, bool opened) {
  switch (name) {
    case SO_REUSEADDR: options.reuse_address = number != 0; return {};
    case SO_KEEPALIVE: options.keep_alive = number != 0; return {};
    case SO_OOBINLINE: options.out_of_band_inline = number != 0; return {};
    case SO_LINGER: options.linger = number != 0; return {};
    case SO_RCVBUF:
      if (!opened) options.receive_bytes = buffer_bytes(number);
      return {};
    case SO_SNDBUF:
      if (!opened) options.send_bytes = buffer_bytes(number);
      return {};
    default: return unknown_option(SOL_SOCKET, name);
  }
}

Result<void> set_tcp_option(SocketOptions& options, int name, int number) {
  switch (name) {
    case TCP_KEEPIDLE:
      if (number <= 0) return fail(ErrorCode::kInvalid, "keep-alive time must be positive");
      options.keep_alive_seconds = number;
      return {};
    case TCP_NODELAY: options.no_delay = number != 0; return {};
    case TCP_KEEPCNT:
    case TCP_KEEPINTVL:
    case TCP_MAXSEG:
    case TCP_CONGESTION: return {};  // The transport is reliable by itself.
    default: return unknown_option(IPPROTO_TCP, name);
  }
}

Result<void> set_rdma_option(SocketOptions& options, int name, int number, bool opened) {
  if (opened) return fail(ErrorCode::kInvalid, "the queues are made already");
  const std::uint32_t size = std::min(static_cast<std::uint32_t>(number), kLargestQueue);
  switch (name) {
    case RDMA_SQSIZE: options.send_queue = size; return {};
    case RDMA_RQSIZE: options.receive_queue = size; return {};
    case RDMA_INLINE: options.inline_bytes = size; return {};
    case RDMA_IOMAPSIZE:
      options.iomap_count = iomap_count_of(iomap_scale_of(size));
      return {};
    default: return unknown_option(SOL_RDMA, name);
  }
}

}  // namespace

Result<void> set_option(SocketOptions& options, int level, int name,
                        std::span<const std::byte> value, bool opened) {
  int number = 0;
  if (level == IPPROTO_TCP && name == TCP_CONGESTION) return {};
  if (value.size() < sizeof number) return fail(ErrorCode::kInvalid, "an option of no value");
  std::memcpy(&number, value.data(), sizeof number);
  switch (level) {
    case SOL_SOCKET: return set_socket_option(options, name, number, opened);
    case IPPROTO_TCP: return set_tcp_option(options, name, number);
    case SOL_RDMA: return set_rdma_option(options, name, number, opened);
    case IPPROTO_IP:
      if (name != IP_TOS) return unknown_option(level, name);
      options.type_of_service = number;
      return {};
    case IPPROTO_IPV6:
      if (name != IPV6_V6ONLY) return unknown_option(level, name);
      options.v6_only = number != 0;
      return {};
    default: return unknown_option(level, name);
  }
}

namespace {

Result<socklen_t> get_socket_option(const SocketOptions& options, int name,
                                    std::span<std::byte> value) {
  switch (name) {
    case SO_REUSEADDR: return put(value, int{options.reuse_address});
    case SO_KEEPALIVE: return put(value, int{options.keep_alive});
    case SO_OOBINLINE: return put(value, int{options.out_of_band_inline});
    case SO_RCVBUF: return put(value, options.receive_bytes);
    case SO_SNDBUF: return put(value, options.send_bytes);
    case SO_LINGER: return put(value, linger{.l_onoff = options.linger, .l_linger = 0});
    case SO_BROADCAST: return put(value, 0);
    default: return unknown_option(SOL_SOCKET, name);
  }
}

Result<socklen_t> get_tcp_option(const SocketOptions& options, int name,
                                 std::span<std::byte> value) {
  switch (name) {
    case TCP_CONGESTION:
    case TCP_KEEPCNT:
    case TCP_KEEPINTVL: return put(value, 1);  // Nothing that this transport has.
    case TCP_KEEPIDLE: return put(value, options.keep_alive_seconds);
    case TCP_NODELAY: return put(value, int{options.no_delay});
    case TCP_MAXSEG: return put(value, options.maximum_segment);
    default: return unknown_option(IPPROTO_TCP, name);
  }
}

Result<socklen_t> get_rdma_option(const SocketOptions& options, int name,
                                  std::span<std::byte> value) {
  switch (name) {
    case RDMA_SQSIZE: return put(value, options.send_queue);
    case RDMA_RQSIZE: return put(value, options.receive_queue);
    case RDMA_INLINE: return put(value, options.inline_bytes);
    case RDMA_IOMAPSIZE: return put(value, options.iomap_count);
    default: return unknown_option(SOL_RDMA, name);
  }
}

}  // namespace

Result<socklen_t> get_option(const SocketOptions& options, int level, int name,
                             std::span<std::byte> value) {
  switch (level) {
    case SOL_SOCKET: return get_socket_option(options, name, value);
    case IPPROTO_TCP: return get_tcp_option(options, name, value);
    case SOL_RDMA: return get_rdma_option(options, name, value);
    case IPPROTO_IP:
      if (name != IP_TOS) return unknown_option(level, name);
      return put(value, options.type_of_service);
    case IPPROTO_IPV6:
      if (name != IPV6_V6ONLY) return unknown_option(level, name);
      return put(value, int{options.v6_only});
    default: return unknown_option(level, name);
  }
}

}  // namespace isthmus::rdmacm
