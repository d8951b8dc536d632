// PacketSocket: whole Ethernet frames of one network interface, many at a time.
//
// Primer: an AF_PACKET socket hears what an interface receives, and also all that this host sends
// through it. An adapter shows a program something in between: what arrives, and, looped back by
// its embedded switch, what other users of the adapter send, but not what the host's own network
// stack sends. So every frame that leaves through one of these sockets carries a mark inside the
// kernel, and of all that leaves, a receiver takes only what is so marked. On the loopback
// interface everything sent arrives anyway, so there nothing that leaves is taken.
//
// The kernel takes a VLAN tag out of an arriving frame; receive() puts it back.
//
// A receiver hears frames beside the kernel's own network stack, which gets them too.
//
// Threading: shard-confined, but fd() may be waited for by any thread.
// Spec: packet(7).
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

using ScatteredFrame = std::span<const iovec>;

enum class PacketRole : std::uint8_t { kSender, kReceiver };

struct PacketCounters {
  std::uint64_t send_failures = 0;     // Frames that the kernel refused.
  std::uint64_t receive_failures = 0;  // Frames longer than a buffer, or shorter than a header.
};

class PacketSocket {
 public:
  // kDenied without CAP_NET_RAW; kNotFound without such an interface in this network namespace.
  static Result<std::unique_ptr<PacketSocket>> open(const std::string& interface_name,
                                                    PacketRole role);
  ~PacketSocket();
  PacketSocket(const PacketSocket&) = delete;
  PacketSocket& operator=(const PacketSocket&) = delete;

  int fd() const { return fd_.get(); }

  // Any number of frames from a sender, each from its destination address to before its check
  // sequence. What the kernel refuses is lost.
  void send(std::span<const ScatteredFrame> frames);

  // One batch for a receiver, without waiting; empty when there is nothing. Valid until the next
  // call.
  std::span<const std::span<const std::byte>> receive();

  const PacketCounters& counters() const { return counters_; }

 private:
  struct ReceiveBatch;

  PacketSocket(Fd fd, PacketRole role);
  void take_arrived(std::size_t index, std::size_t bytes);

  Fd fd_;
  PacketCounters counters_;
  std::unique_ptr<ReceiveBatch> incoming_;  // Null in a sender.
};

}  // namespace isthmus::os
