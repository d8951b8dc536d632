// PacketPort: where datagrams leave and arrive. A UDP socket, or the simulation's network.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "wire/ip.h"

namespace isthmus::rdma {

// The UDP port of RoCEv2, as source and as destination of all we send.
constexpr std::uint16_t kRocePort = 4791;

// Consecutive UDP payloads for one destination: all of segment_bytes, the last may be shorter.
// Their bytes lie in `parts`, one after the other, cut anywhere.
struct OutgoingRun {
  wire::IpAddress source;
  wire::IpAddress destination;
  std::span<const iovec> parts;
  std::uint32_t bytes;
  std::uint32_t segment_bytes;
};

struct IncomingDatagram {
  wire::IpAddress source;
  wire::IpAddress destination;
  std::uint16_t source_port;
  std::uint8_t hop_limit;  // These two are known after ask_for_hops().
  std::uint8_t traffic_class;
  std::span<const std::byte> payload;  // UDP payload: BTH to ICRC.
};

class PacketPort {
 public:
  virtual ~PacketPort() = default;

  // May lose any of them, as a network may. The bytes are borrowed until return.
  virtual void send(std::span<const OutgoingRun> runs) = 0;

  // How many segments a run may have; more than 1 only where the IP ID of segment i is i. All
  // together are at most os::kMaxRunBytes in at most os::kMaxRunParts parts.
  virtual std::uint32_t max_segments() const = 0;

  // What has arrived, at most one batch; empty when nothing has. Valid until the next call.
  virtual std::span<const IncomingDatagram> receive() = 0;

  // Datagram queue pairs show hop limit and traffic class to the program; nobody else needs them.
  virtual void ask_for_hops() = 0;

  // Multicast membership. False: the kernel refused.
  virtual bool join(const wire::IpAddress& group) = 0;
  virtual void leave(const wire::IpAddress& group) = 0;
};

}  // namespace isthmus::rdma
