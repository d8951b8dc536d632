// EthernetPort: the frame port of a network interface: one socket that sends, and one that hears
// everything for as long as somebody listens.
//
// Threading: shard-confined.
#pragma once

#include <memory>
#include <string>

#include "os/epoll.h"
#include "os/packet_socket.h"
#include "rdma/frame_port.h"

namespace isthmus::rdma {

class EthernetPort final : public FramePort {
 public:
  // `readable` gets the descriptor that becomes readable when frames arrive; it outlives the port.
  // kDenied: no right to raw frames.
  static Result<std::unique_ptr<EthernetPort>> create(const std::string& interface_name,
                                                      std::uint32_t mtu, os::Epoll& readable);
  ~EthernetPort() override;
  EthernetPort(const EthernetPort&) = delete;
  EthernetPort& operator=(const EthernetPort&) = delete;

  std::uint32_t max_frame_bytes() const override { return max_frame_bytes_; }
  void send(std::span<const OutgoingFrame> frames) override { sender_->send(frames); }
  Result<void> listen() override;
  void ignore() override;
  std::span<const IncomingFrame> receive() override;

 private:
  EthernetPort(std::string interface_name, std::uint32_t max_frame_bytes, os::Epoll& readable,
               std::unique_ptr<os::PacketSocket> sender);

  std::string interface_name_;
  std::uint32_t max_frame_bytes_;
  os::Epoll& readable_;
  std::unique_ptr<os::PacketSocket> sender_;
  std::unique_ptr<os::PacketSocket> receiver_;  // Null: nobody listens.
};

}  // namespace isthmus::rdma
