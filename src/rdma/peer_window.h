// PeerWindow: a neighbour on this host, through its window, its memory and its doorbell.
#pragma once

#include <cstdint>
#include <memory>

#include "os/process_memory.h"
#include "rdma/shared_files.h"
#include "rdma/window.h"

namespace isthmus::rdma {

class PeerWindow {
 public:
  // `process_id` is as this process sees it.
  // SAFETY: `window` is a mapping of sizeof(Window) bytes that lives as long as the object; the
  // caller keeps it with `keep_alive`.
  PeerWindow(Window* window, std::int32_t process_id, int doorbell_fd,
             std::shared_ptr<void> keep_alive)
      : window_(window),
        memory_(process_id),
        files_(process_id),
        doorbell_fd_(doorbell_fd),
        keep_alive_(std::move(keep_alive)) {}

  Window& window() const { return *window_; }
  const os::ProcessMemory& memory() const { return memory_; }
  SharedFiles& files() { return files_; }
  int doorbell_fd() const { return doorbell_fd_; }  // An eventfd.
  // Acquire: what the owner wrote before it went away is seen.
  bool closed() const { return window_->header.closed.load(std::memory_order_acquire) != 0; }

 private:
  Window* window_;
  os::ProcessMemory memory_;
  SharedFiles files_;
  int doorbell_fd_;
  std::shared_ptr<void> keep_alive_;
};

}  // namespace isthmus::rdma
