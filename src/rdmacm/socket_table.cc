#include "rdmacm/socket_table.h"

#include <fcntl.h>

#include <utility>

namespace isthmus::rdmacm {

SocketTable& SocketTable::instance() {
  static auto* const table = new SocketTable;
  return *table;
}

std::shared_ptr<Socket> SocketTable::find(int number) const {
  std::shared_lock lock(mutex_);
  const auto index = static_cast<std::size_t>(number);
  return number >= 0 && index < by_number_.size() ? by_number_[index] : nullptr;
}

void SocketTable::add(std::shared_ptr<Socket> socket) {
  const auto index = static_cast<std::size_t>(socket->number());
  std::unique_lock lock(mutex_);
  if (by_number_.size() <= index) by_number_.resize(index + 1);
  by_number_[index] = std::move(socket);
}

std::shared_ptr<Socket> SocketTable::remove(int number) {
  std::unique_lock lock(mutex_);
  const auto index = static_cast<std::size_t>(number);
  if (number < 0 || index >= by_number_.size()) return nullptr;
  return std::exchange(by_number_[index], nullptr);
}

bool Socket::must_not_wait(int flags) const {
  return (flags & MSG_DONTWAIT) != 0 || (status_flags & O_NONBLOCK) != 0;
}

}  // namespace isthmus::rdmacm
