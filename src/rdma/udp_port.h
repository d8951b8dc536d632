// UdpPort: the packet port of a process: the UDP sockets of its virtual function.
//
// There is one socket for each local address family, or for each local address where the daemon
// was told to use only some. They belong to the daemon's steered groups (os/reuseport_group.h).
//
// Threading: shard-confined, but fd() may be waited for by any thread.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "os/epoll.h"
#include "os/udp_socket.h"
#include "rdma/packet_port.h"

namespace isthmus::rdma {

class UdpPort final : public PacketPort {
 public:
  // `sockets` are bound to one port, kRocePort except in tests.
  static Result<std::unique_ptr<UdpPort>> create(std::vector<os::Fd> sockets);
  UdpPort(const UdpPort&) = delete;
  UdpPort& operator=(const UdpPort&) = delete;

  // Readable when receive() would find something: an epoll set, to wait for and nothing else.
  int fd() const { return readable_->fd(); }
  // That set, for ports beside this one that are waited for together with it.
  os::Epoll& readable() { return *readable_; }

  void send(std::span<const OutgoingRun> runs) override;
  std::uint32_t max_segments() const override { return os::kMaxRunSegments; }
  std::span<const IncomingDatagram> receive() override;
  void ask_for_hops() override;
  bool join(const wire::IpAddress& group) override;
  void leave(const wire::IpAddress& group) override;

  // Of all sockets together.
  os::UdpCounters counters() const;

 private:
  struct Membership {
    wire::IpAddress group;
    std::unique_ptr<os::UdpSocket> socket;  // Null: an ordinary socket is the member.
  };

  UdpPort(std::unique_ptr<os::Epoll> readable,
          std::vector<std::unique_ptr<os::UdpSocket>> sockets);
  os::UdpSocket* socket_for(const OutgoingRun& run);
  void flush(os::UdpSocket& socket);
  bool receive_from(std::size_t index);
  os::UdpSocket& receiver(std::size_t index);
  bool join_by_own_socket(const wire::IpAddress& group, const wire::IpAddress& on);

  std::unique_ptr<os::Epoll> readable_;
  std::vector<std::unique_ptr<os::UdpSocket>> sockets_;
  std::vector<Membership> memberships_;
  std::vector<os::OutgoingDatagramRun> outgoing_;
  std::vector<IncomingDatagram> incoming_;
  std::size_t recent_ = 0;     // The socket that delivered last: asked each time.
  std::size_t turn_ = 0;       // The next of the others to be asked.
  std::uint32_t calls_ = 0;
  bool wants_hops_ = false;
};

}  // namespace isthmus::rdma
