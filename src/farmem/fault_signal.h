// Faults by signal: the thread that faults serves itself, in its SIGBUS handler.
//
// Primer: a hand-over to another thread takes 17 to 60 µs on a virtual machine; this takes 2.8,
// most of it the trap and the mapping, and threads on different processors do not wait for each
// other's. The price: a system call that is given a page that is not here fails with EFAULT.
//
// A thread that blocks SIGBUS and touches a far page is ended by the kernel. Programs' handlers of
// SIGBUS that were there before are called for addresses that are not far.
//
// Threading: start and stop from any thread; not while the pager's pages are being touched.
#pragma once

#include "base/result.h"
#include "farmem/pager.h"

namespace isthmus::farmem {

constexpr std::size_t kMostSignalPagers = 16;

// What is to be called before and after a fault is served, in the handler; nullptr: nothing.
struct AroundServing {
  void (*enter)() = nullptr;
  void (*leave)() = nullptr;
};

// From here to its end, touches of the pager's region are served.
class FaultSignal {
 public:
  // kNoMemory: kMostSignalPagers are there already.
  static Result<std::unique_ptr<FaultSignal>> start(Pager& pager, AroundServing around = {});
  ~FaultSignal();
  FaultSignal(const FaultSignal&) = delete;
  FaultSignal& operator=(const FaultSignal&) = delete;

 private:
  explicit FaultSignal(std::size_t place) : place_(place) {}

  std::size_t place_;
};

// A fault that cannot be served ends the process with these words.
const char* last_words(ServeVerdict verdict);

}  // namespace isthmus::farmem
