// Epoll: waiting for many descriptors at once.
//
// Threading: add, modify and remove from any thread; wait from one.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

enum class Interest : std::uint32_t { kRead = 1, kWrite = 4, kReadWrite = 5 };

struct Readiness {
  std::uint64_t tag = 0;  // As given to add().
  bool readable = false;
  bool writable = false;
  bool closed = false;  // Hang-up or error: read to learn more.
};

constexpr std::uint64_t kWaitForEver = UINT64_MAX;

class Epoll {
 public:
  static Result<std::unique_ptr<Epoll>> create();
  Epoll(const Epoll&) = delete;
  Epoll& operator=(const Epoll&) = delete;

  Result<void> add(int fd, std::uint64_t tag, Interest interest = Interest::kRead);
  Result<void> modify(int fd, std::uint64_t tag, Interest interest);
  void remove(int fd);

  // Fills `out` from its start and returns the used part; empty after `timeout_ns` (kWaitForEver:
  // only with events; 0: at once) or when a signal handler ran.
  std::span<const Readiness> wait(std::span<Readiness> out, std::uint64_t timeout_ns);

  // An Epoll is itself a descriptor that another one can wait for.
  int fd() const { return fd_.get(); }

 private:
  explicit Epoll(Fd fd) : fd_(std::move(fd)) {}

  Fd fd_;
};

}  // namespace isthmus::os
