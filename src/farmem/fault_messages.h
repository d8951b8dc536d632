// Faults by message: a thread of ours reads them from the userfaultfd and serves them, also those
// of the kernel inside a system call.
//
// A hand-over on one processor costs 2 µs, to another 40. So while one thread alone faults, it and
// ours are kept on one processor: two threads that take turns lose nothing by that. When another
// thread faults too, both are let go, and each fault costs a hand-over; then FaultSignal is the
// better way.
//
// Threading: start and stop from any thread.
#pragma once

#include <memory>
#include <mutex>
#include <thread>

#include "base/result.h"
#include "farmem/pager.h"
#include "os/fd.h"
#include "os/processor.h"

namespace isthmus::farmem {

class FaultMessages {
 public:
  static Result<std::unique_ptr<FaultMessages>> start(Pager& pager);
  ~FaultMessages();

  // Lets go of the thread that is kept on a processor, for what it starts would be kept there too.
  // Before fork() and its like.
  void let_go();

  FaultMessages(const FaultMessages&) = delete;
  FaultMessages& operator=(const FaultMessages&) = delete;

 private:
  FaultMessages(Pager& pager, os::Fd stop)
      : pager_(pager), stop_(std::move(stop)) {}

  void run();
  void stay_with(std::uint32_t thread_id);

  Pager& pager_;
  os::Fd stop_;
  std::mutex hold_lock_;
  std::unique_ptr<os::ProcessorHold> hold_;  // Under the lock.
  std::uint32_t last_thread_ = 0;
  std::uint32_t faults_in_a_row_ = 0;
  std::thread thread_;
};

}  // namespace isthmus::farmem
