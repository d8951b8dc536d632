// UdpSocket: datagrams of one port, many at a time in both directions.
//
// Primer: RoCEv2's checksum (ICRC) covers the IP identification field, which a UDP program neither
// sets nor sees. Linux sends 0 there when the socket is not connected and must not fragment, and
// 0, 1, 2, ... for the segments of one segmented send (UDP_SEGMENT, "GSO"). So a sender knows what
// it will be.
//
// On arrival the kernel may hand over several datagrams of one sender as one buffer (UDP_GRO);
// receive() splits them again.
//
// Threading: shard-confined. The same open socket may be in use by several processes.
// Spec: udp(7), ip(7), ipv6(7).
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "os/fd.h"
#include "wire/ip.h"

namespace isthmus::os {

constexpr std::size_t kMaxRunSegments = 64;   // UDP_MAX_SEGMENTS of every kernel with UDP_SEGMENT.
constexpr std::size_t kMaxRunBytes = 64'000;  // An IP packet holds 65535 with its headers.
constexpr std::size_t kMaxRunParts = 1024;    // UIO_MAXIOV.

inline iovec part_of(std::span<const std::byte> bytes) {
  // SAFETY: parts of a run are only read.
  return {const_cast<std::byte*>(bytes.data()), bytes.size()};
}

// Consecutive payloads for one destination: all of segment_bytes, the last may be shorter. At most
// kMaxRunSegments, of kMaxRunBytes together.
struct OutgoingDatagramRun {
  wire::IpAddress source;  // One of this host, of the socket's family; "::" lets the kernel choose.
  wire::IpAddress destination;
  std::uint16_t destination_port = 0;
  std::span<const iovec> parts;  // Their bytes, one after the other; at most kMaxRunParts.
  std::uint32_t bytes = 0;       // Of all parts.
  std::uint32_t segment_bytes = 0;
};

struct ArrivedDatagram {
  wire::IpAddress source;
  wire::IpAddress destination;
  std::uint16_t source_port = 0;
  std::uint8_t hop_limit = 0;      // These two are 0 before ask_for_hops().
  std::uint8_t traffic_class = 0;
  std::span<const std::byte> payload;
};

enum class PortSharing {
  kNone,       // The only socket of its address and port.
  kGroup,      // SO_REUSEPORT: one of a steered group of this user.
  kMulticast,  // For a group address: everybody on this host may have one, each gets a copy.
};

struct UdpSocketOptions {
  wire::IpAddress address;     // 0.0.0.0 (as IPv4) or ::, for all of that family.
  std::uint16_t port = 0;      // 0: any free one.
  PortSharing sharing = PortSharing::kNone;
};

struct UdpCounters {
  std::uint64_t send_failures = 0;     // Runs that the kernel refused.
  std::uint64_t receive_failures = 0;  // Datagrams cut short or without an address.
};

class UdpSocket {
 public:
  // kAddressInUse: somebody has the port.
  static Result<std::unique_ptr<UdpSocket>> open(const UdpSocketOptions& options);
  // A socket made by open(), perhaps in another process.
  static Result<std::unique_ptr<UdpSocket>> adopt(Fd fd);
  ~UdpSocket();
  UdpSocket(const UdpSocket&) = delete;
  UdpSocket& operator=(const UdpSocket&) = delete;

  int fd() const { return fd_.get(); }
  const wire::IpAddress& address() const { return address_; }  // As bound.
  std::uint16_t port() const { return port_; }
  bool is_v4() const { return address_.is_v4(); }
  bool is_wildcard() const;

  // Any number of runs, each by as few system calls as possible. What the kernel refuses is lost.
  void send(std::span<const OutgoingDatagramRun> runs);

  // From now on the kernel tells hop limit and traffic class of what arrives, for 0.1 µs each.
  void ask_for_hops();

  // One batch, without waiting; empty when there is nothing. Valid until the next call.
  std::span<const ArrivedDatagram> receive();

  // Multicast membership, on the interface that owns `on`, or on all when that is zero.
  Result<void> join(const wire::IpAddress& group, const wire::IpAddress& on = {});
  void leave(const wire::IpAddress& group);

  const UdpCounters& counters() const { return counters_; }

 private:
  struct SendBatch;
  struct ReceiveBatch;

  UdpSocket(Fd fd, const wire::IpAddress& address, std::uint16_t port);
  void add_to_batch(const OutgoingDatagramRun& run);
  void flush_batch();
  unsigned scope_of(const wire::IpAddress& local, const wire::IpAddress& remote);
  int receive_batch();
  void take_arrived(std::size_t index, std::size_t bytes);

  Fd fd_;
  wire::IpAddress address_;
  std::uint16_t port_;
  UdpCounters counters_;
  std::unique_ptr<SendBatch> outgoing_;
  std::unique_ptr<ReceiveBatch> incoming_;
};

// Whether the kernel may hand over several datagrams as one (UDP_GRO, on from the beginning). It
// puts together what one address and port sent to one address and port, whatever is inside.
enum class Coalescing { kOn, kOff };
void set_coalescing(const Fd& socket, Coalescing coalescing);

// The options that every RoCE socket has; open() applies them. For groups of sockets.
Result<Fd> open_udp_fd(const UdpSocketOptions& options);

}  // namespace isthmus::os
