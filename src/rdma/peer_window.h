// PeerWindow: a neighbour on this host, through its window, its memory and its doorbell.
#pragma once

#include <cstdint>
#include <memory>

#include "rdma/window.h"

namespace isthmus::rdma {

class PeerWindow {
 public:
  // SAFETY: `window` is a mapping of sizeof(Window) bytes that lives as long as the object; the
  // caller keeps it with `keep_alive`.
  PeerWindow(Window* window, std::int32_t process_id, int doorbell_fd,
             std::shared_ptr<void> keep_alive)
      : window_(window),
        process_id_(process_id),
        doorbell_fd_(doorbell_fd),
        keep_alive_(std::move(keep_alive)) {}

  Window& window() const { return *window_; }
  std::int32_t process_id() const { return process_id_; }  // As this process sees it.
  int doorbell_fd() const { return doorbell_fd_; }         // An eventfd.
  // Acquire: what the owner wrote before it went away is seen.
  bool closed() const { return window_->header.closed.load(std::memory_order_acquire) != 0; }

 private:
  Window* window_;
  std::int32_t process_id_;
  int doorbell_fd_;
  std::shared_ptr<void> keep_alive_;
};

}  // namespace isthmus::rdma
