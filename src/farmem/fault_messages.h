// Faults by message: a thread of ours reads them from the userfaultfd and serves them, also those
// of the kernel inside a system call.
//
// The thread stays on the processor where faults come from: the hand-over there costs 2 µs, to
// another processor 40. A program whose threads fault on several processors at once pays that for
// some of them; then FaultSignal is the better way.
//
// Threading: start and stop from any thread.
#pragma once

#include <memory>
#include <thread>

#include "base/result.h"
#include "farmem/pager.h"
#include "os/fd.h"

namespace isthmus::farmem {

class FaultMessages {
 public:
  static Result<std::unique_ptr<FaultMessages>> start(Pager& pager);
  ~FaultMessages();
  FaultMessages(const FaultMessages&) = delete;
  FaultMessages& operator=(const FaultMessages&) = delete;

 private:
  FaultMessages(Pager& pager, os::Fd stop)
      : pager_(pager), stop_(std::move(stop)) {}

  void run();
  void follow(std::uint32_t thread_id);

  Pager& pager_;
  os::Fd stop_;
  std::uint32_t last_thread_ = 0;
  std::uint32_t faults_until_look_ = 0;
  std::uint32_t processor_ = ~0u;
  std::thread thread_;
};

}  // namespace isthmus::farmem
