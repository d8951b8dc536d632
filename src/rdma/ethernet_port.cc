#include "rdma/ethernet_port.h"

#include "wire/ip.h"

namespace isthmus::rdma {
namespace {

constexpr std::uint32_t kVlanTagBytes = 4;  // The kernel allows one beyond the MTU.

}  // namespace

Result<std::unique_ptr<EthernetPort>> EthernetPort::create(const std::string& interface_name,
                                                           std::uint32_t mtu,
                                                           os::Epoll& readable) {
  auto sender = ISTHMUS_TRY(os::PacketSocket::open(interface_name, os::PacketRole::kSender));
  const auto longest = static_cast<std::uint32_t>(mtu + wire::kEthernetBytes + kVlanTagBytes);
  return std::unique_ptr<EthernetPort>(
      new EthernetPort(interface_name, longest, readable, std::move(sender)));
}

EthernetPort::EthernetPort(std::string interface_name, std::uint32_t max_frame_bytes,
                           os::Epoll& readable, std::unique_ptr<os::PacketSocket> sender)
    : interface_name_(std::move(interface_name)),
      max_frame_bytes_(max_frame_bytes),
      readable_(readable),
      sender_(std::move(sender)) {}

EthernetPort::~EthernetPort() { ignore(); }

Result<void> EthernetPort::listen() {
  if (receiver_) return {};
  auto receiver =
      ISTHMUS_TRY(os::PacketSocket::open(interface_name_, os::PacketRole::kReceiver));
  ISTHMUS_TRY_VOID(readable_.add(receiver->fd(), 0));
  receiver_ = std::move(receiver);
  return {};
}

void EthernetPort::ignore() {
  if (!receiver_) return;
  // Closing alone would leave it in the set while a forked child has a copy.
  readable_.remove(receiver_->fd());
  receiver_.reset();
}

std::span<const IncomingFrame> EthernetPort::receive() {
  if (!receiver_) return {};
  return receiver_->receive();
}

}  // namespace isthmus::rdma
