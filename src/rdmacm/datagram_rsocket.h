// DatagramRsocket: a datagram rsocket. A UDP socket that gives it its address, and one UD QP for
// each local IP address it talks from.
//
// A datagram that is too long for a packet of the RDMA network goes through the UDP socket, which
// can cut it up.
//
// Threading: any thread. One lock, held while working and never while waiting. Nothing happens
// between calls: introductions wait in the UDP socket until somebody looks.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "os/datagram_socket.h"
#include "rdmacm/datagram_wire.h"
#include "rdmacm/session.h"
#include "rdmacm/socket.h"

namespace isthmus::rdmacm {

class DatagramRsocket final : public Socket {
 public:
  static Result<std::shared_ptr<DatagramRsocket>> create(Session& session, int domain);
  ~DatagramRsocket() override;

  int number() const override { return udp_->fd(); }
  Result<void> bind_to(const CmAddress& address) override;
  Result<void> start_listening(int) override { return unsupported(); }
  Result<std::shared_ptr<Socket>> take_request(CmAddress&) override { return unsupported(); }
  Result<void> connect_to(const CmAddress& address) override;
  Result<void> shut_down(int) override { return {}; }
  void give_up() override;
  Result<std::size_t> receive(std::span<const iovec> into, int flags, CmAddress* from) override;
  Result<std::size_t> send(std::span<const iovec> data, int flags, const CmAddress* to) override;
  Result<CmAddress> local_address() override;
  Result<CmAddress> peer_address() override;
  short ready_events(short events) override;
  void arm(std::vector<int>& descriptors) override;
  Result<void> set_option(int level, int name, std::span<const std::byte> value) override;
  Result<socklen_t> get_option(int level, int name, std::span<std::byte> value) override;

 private:
  // A UD QP at one local address.
  struct Port {
    Identifier* identifier = nullptr;
    CmAddress address;  // With the UDP socket's port.
    std::vector<std::byte> memory;  // Receive slots, then send slots.
    ibv_mr* region = nullptr;
    std::vector<std::uint32_t> free_sends;  // Slots.
    std::uint32_t largest_bytes = 0;        // Header and data of one packet.
    std::uint32_t inline_bytes = 0;
  };
  struct Destination {
    CmAddress address;
    Port* port = nullptr;
    ibv_ah* handle = nullptr;  // Null: the peer's QP is not known yet.
    std::uint32_t qpn = 0;
  };
  struct Datagram {
    CmAddress from;
    std::vector<std::byte> bytes;
  };
  using AddressKey = std::pair<std::array<std::uint8_t, 16>, std::uint16_t>;
  using Lock = std::unique_lock<std::mutex>;

  DatagramRsocket(Session& session, int domain, std::unique_ptr<os::DatagramSocket> udp)
      : Socket(domain, SOCK_DGRAM), session_(session), udp_(std::move(udp)) {}

  // With the lock held.
  Result<Destination*> destination_of(const CmAddress& address);
  Result<Port*> port_at(const CmAddress& local);
  Result<void> open_port(Port& port);
  Result<void> make_queues(Port& port);
  Result<void> introduce(Destination& destination, std::uint32_t qpn);
  Result<CmAddress> bound_address();
  void close_port(Port& port);
  void post_receive(Port& port, std::uint32_t slot);
  Result<void> send_by_udp(Destination& destination, std::span<const iovec> data,
                           IntroductionKind kind);
  Result<void> send_by_qp(Destination& destination, std::span<const iovec> data,
                          std::size_t bytes);
  void progress();
  void poll_port(Port& port);
  void take_message(Port& port, std::uint32_t slot, std::uint32_t bytes);
  void read_udp();
  void keep(const CmAddress& from, std::span<const std::byte> bytes);
  bool all_sent() const;
  std::byte* receive_slot(Port& port, std::uint32_t slot) const;
  std::byte* send_slot(Port& port, std::uint32_t slot) const;
  std::vector<int> descriptors() const;
  void arm_ports();
  Result<void> wait_until(Lock& lock, int flags, std::uint64_t timeout_ns,
                          const std::function<bool()>& ready);

  Session& session_;
  const std::unique_ptr<os::DatagramSocket> udp_;
  std::mutex mutex_;
  SocketOptions options_;
  bool given_up_ = false;
  std::map<std::array<std::uint8_t, 16>, std::unique_ptr<Port>> ports_;
  std::map<AddressKey, Destination> destinations_;
  std::unique_ptr<CmAddress> peer_;  // Of connect_to.
  std::deque<Datagram> received_;
  std::size_t received_bytes_ = 0;
  std::vector<std::byte> udp_buffer_;
};

}  // namespace isthmus::rdmacm
