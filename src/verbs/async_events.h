// AsyncEvents: what a context has to tell its program besides completions, until it is taken.
//
// The descriptor counts what waits here, so that a program can poll for it.
//
// Threading: the context's lock.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/result.h"
#include "os/fd.h"
#include "verbs/objects.h"

namespace isthmus::verbs {

struct AsyncEvent {
  ibv_event_type type{};
  Qp* qp = nullptr;  // At most one of the three; none: an event of the port.
  Cq* cq = nullptr;
  Srq* srq = nullptr;
};

class AsyncEvents {
 public:
  // One per QP and a few more; a program that takes none loses the newest.
  static constexpr std::size_t kCapacity = 8192;

  Result<void> open();
  int fd() const { return fd_.get(); }
  os::Fd& descriptor() { return fd_; }

  void add(const AsyncEvent& event);
  // The oldest; the object remembers that it has to be acknowledged. False: none.
  bool take(ibv_async_event& out);
  // Before an object is destroyed: its events are gone.
  void purge(const void* object);

 private:
  std::vector<AsyncEvent> waiting_;  // Oldest first.
  os::Fd fd_;
};

}  // namespace isthmus::verbs
