// Faults by message: threads of ours read them from the userfaultfd and serve them, also those of
// the kernel inside a system call.
//
// A hand-over on one processor costs 2 µs, to another 40, so the thread that serves has to be where
// the fault is. While one thread of the program alone faults, one server serves, and both are kept
// on one processor: two threads that take turns lose nothing by that. When several fault in turn,
// nobody is kept anywhere and there is a server on each processor: every message wakes all of
// them, and the one that need not be sent for is there first.
//
// Threading: start and stop from any thread.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "base/result.h"
#include "farmem/pager.h"
#include "os/fd.h"
#include "os/processor.h"

namespace isthmus::farmem {

class FaultMessages {
 public:
  static Result<std::unique_ptr<FaultMessages>> start(Pager& pager);
  ~FaultMessages();
  FaultMessages(const FaultMessages&) = delete;
  FaultMessages& operator=(const FaultMessages&) = delete;

  // Lets go of the thread that is kept on a processor, for what it starts would be kept there too.
  // Before fork() and its like.
  void let_go();

 private:
  FaultMessages(Pager& pager, os::Fd stop, os::Fd crowd)
      : pager_(pager), stop_(std::move(stop)), crowd_event_(std::move(crowd)) {}

  // One server serves always, the others while it is crowded.
  void run_first();
  void run_other(std::uint32_t processor);
  // False: nothing there. `first`: this is the server that decides who serves.
  bool serve_some(bool first);
  void note_fault(std::uint32_t thread_id, bool first);
  void decide();
  void stay_with(std::uint32_t thread_id);
  void let_go_unless_busy();

  Pager& pager_;
  os::Fd stop_;
  os::Fd crowd_event_;  // Readable while it is crowded.
  std::atomic<bool> crowded_{false};

  std::mutex hold_lock_;
  std::unique_ptr<os::ProcessorHold> hold_;  // Under the lock.

  // All relaxed: they count, and a miscount only delays a decision.
  std::atomic<std::uint32_t> last_thread_{0};
  std::atomic<std::uint32_t> faults_{0};
  std::atomic<std::uint32_t> changes_{0};  // Of the thread, from one fault to the next.
  std::uint32_t faults_in_a_row_ = 0;      // Of the first server.

  std::vector<std::thread> threads_;
};

}  // namespace isthmus::farmem
