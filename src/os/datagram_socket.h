// A plain UDP socket with the kernel's own address structs, for the datagram rsockets, which offer
// programs the interface of one.
//
// Threading: as the kernel's.
#pragma once

#include <sys/socket.h>

#include <cstddef>
#include <memory>
#include <span>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

struct DatagramAddress {
  sockaddr_storage storage{};
  socklen_t bytes = 0;
};

class DatagramSocket {
 public:
  // `domain`: AF_INET or AF_INET6. Never blocks.
  static Result<std::unique_ptr<DatagramSocket>> create(int domain);
  DatagramSocket(const DatagramSocket&) = delete;
  DatagramSocket& operator=(const DatagramSocket&) = delete;

  int fd() const { return fd_.get(); }
  Result<void> set_local_address(const DatagramAddress& address);
  Result<DatagramAddress> local_address() const;
  // The address that the kernel would send from.
  static Result<DatagramAddress> source_towards(const DatagramAddress& destination);

  Result<void> send_to(const DatagramAddress& destination, std::span<const iovec> parts);
  // kAgain: nothing there. A datagram longer than the buffer is cut.
  Result<std::size_t> receive(std::span<std::byte> buffer, DatagramAddress& from);

  Result<void> set_option(int level, int name, std::span<const std::byte> value);
  Result<socklen_t> get_option(int level, int name, std::span<std::byte> value) const;

 private:
  explicit DatagramSocket(Fd fd) : fd_(std::move(fd)) {}

  Fd fd_;
};

}  // namespace isthmus::os
