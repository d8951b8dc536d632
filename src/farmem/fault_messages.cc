#include "farmem/fault_messages.h"

#include <array>

#include "farmem/fault_signal.h"
#include "os/event_fd.h"
#include "os/last_words.h"
#include "os/poll.h"
#include "os/signal_block.h"

namespace isthmus::farmem {
namespace {

constexpr std::size_t kEventsAtOnce = 4;

// So many faults of one thread in a row, and it is taken for the only one.
constexpr std::uint32_t kFaultsUntilHold = 16;
// After so many it is let go for a moment, so that the scheduler may find it a better processor.
constexpr std::uint32_t kFaultsOfHold = 20'000;

// Every so many faults: is it crowded? If the thread has changed at every eighth or more often.
constexpr std::uint32_t kFaultsOfDecision = 256;
constexpr std::uint32_t kChangesOfCrowd = kFaultsOfDecision / 8;

// More servers than this wake each other for nothing.
constexpr std::size_t kMostServers = 8;

constexpr std::uint64_t kForeverNs = ~std::uint64_t{0};

}  // namespace

Result<std::unique_ptr<FaultMessages>> FaultMessages::start(Pager& pager) {
  os::Fd stop = ISTHMUS_TRY(os::create_event_fd());
  os::Fd crowd = ISTHMUS_TRY(os::create_event_fd());
  auto messages = std::unique_ptr<FaultMessages>(
      new FaultMessages(pager, std::move(stop), std::move(crowd)));
  FaultMessages* raw = messages.get();
  const os::SignalBlock block;  // Inherited: no handler of the program runs in our threads.
  raw->threads_.emplace_back([raw] { raw->run_first(); });
  const auto processors = os::usable_processors();
  for (std::size_t index = 0; index < processors.size() && index < kMostServers; ++index) {
    if (processors.size() == 1) break;
    raw->threads_.emplace_back(
        [raw, processor = processors[index]] { raw->run_other(processor); });
  }
  return messages;
}

FaultMessages::~FaultMessages() {
  os::signal(stop_.get());
  for (std::thread& thread : threads_) thread.join();
}

void FaultMessages::run_first() {
  const std::array<int, 2> fds{pager_.userfault().fd(), stop_.get()};
  while ((os::wait_readable(fds, kForeverNs) & 2) == 0) {
    while (serve_some(true)) {
    }
  }
}

void FaultMessages::run_other(std::uint32_t processor) {
  os::stay_on_processor(processor);
  for (;;) {
    const bool crowded = crowded_.load(std::memory_order_relaxed);
    const std::array<int, 2> fds{crowded ? pager_.userfault().fd() : crowd_event_.get(),
                                 stop_.get()};
    if ((os::wait_readable(fds, kForeverNs) & 2) != 0) return;
    if (crowded) serve_some(false);
  }
}

bool FaultMessages::serve_some(bool first) {
  std::array<os::UffdEvent, kEventsAtOnce> events;
  const auto count = pager_.userfault().read_events(events);
  if (!count) os::end_process("userfaultfd gives no more messages");
  for (std::size_t index = 0; index < *count; ++index) {
    const os::UffdEvent& event = events[index];
    if (event.kind != os::UffdEventKind::kFault) continue;
    note_fault(event.thread_id, first);
    const ServeVerdict verdict = pager_.serve(event.address, event.access);
    if (verdict != ServeVerdict::kServed) os::end_process(last_words(verdict));
  }
  return *count == events.size();
}

void FaultMessages::note_fault(std::uint32_t thread_id, bool first) {
  constexpr auto kRelaxed = std::memory_order_relaxed;
  if (last_thread_.exchange(thread_id, kRelaxed) != thread_id) {
    changes_.fetch_add(1, kRelaxed);
    if (first) {
      let_go_unless_busy();
      faults_in_a_row_ = 0;
    }
  }
  faults_.fetch_add(1, kRelaxed);
  if (!first) return;
  if (faults_.load(kRelaxed) >= kFaultsOfDecision) decide();
  if (!crowded_.load(kRelaxed)) stay_with(thread_id);
}

void FaultMessages::decide() {
  constexpr auto kRelaxed = std::memory_order_relaxed;
  const bool crowded = changes_.exchange(0, kRelaxed) >= kChangesOfCrowd;
  faults_.store(0, kRelaxed);
  if (crowded == crowded_.load(kRelaxed)) return;
  crowded_.store(crowded, kRelaxed);
  if (crowded) {
    let_go_unless_busy();
    os::signal(crowd_event_.get());
  } else {
    os::drain(crowd_event_.get());
  }
}

void FaultMessages::stay_with(std::uint32_t thread_id) {
  if (++faults_in_a_row_ == kFaultsOfHold) {
    let_go_unless_busy();
    faults_in_a_row_ = 0;
  }
  if (faults_in_a_row_ != kFaultsUntilHold) return;
  const auto processor = os::processor_of_thread(thread_id);
  if (!processor || !os::stay_on_processor(*processor)) return;
  const std::unique_lock guard(hold_lock_, std::try_to_lock);
  if (guard) hold_ = os::ProcessorHold::take(thread_id, *processor);
}

// A server does not wait for a lock that a thread of the program may hold while it faults.
void FaultMessages::let_go_unless_busy() {
  const std::unique_lock guard(hold_lock_, std::try_to_lock);
  if (guard) hold_.reset();
}

void FaultMessages::let_go() {
  const std::lock_guard guard(hold_lock_);
  hold_.reset();
}

}  // namespace isthmus::farmem
