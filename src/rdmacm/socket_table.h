// The rsockets of this process by the descriptor that programs know them by.
//
// Threading: any thread. A socket lives on while a call still uses it, even when it is closed.
#pragma once

#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "rdmacm/socket.h"

namespace isthmus::rdmacm {

class SocketTable {
 public:
  // Never destroyed: threads may use sockets while the process ends.
  static SocketTable& instance();

  // Null: no rsocket has that descriptor.
  std::shared_ptr<Socket> find(int number) const;
  void add(std::shared_ptr<Socket> socket);
  // Takes it out.
  std::shared_ptr<Socket> remove(int number);

 private:
  mutable std::shared_mutex mutex_;
  std::vector<std::shared_ptr<Socket>> by_number_;
};

}  // namespace isthmus::rdmacm
