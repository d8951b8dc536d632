#include "farmem/fault_messages.h"

#include <array>

#include "farmem/fault_signal.h"
#include "os/event_fd.h"
#include "os/last_words.h"
#include "os/poll.h"
#include "os/processor.h"
#include "os/signal_block.h"

namespace isthmus::farmem {
namespace {

constexpr std::size_t kEventsAtOnce = 16;

// So many faults of one thread in a row, and it is taken for the only one.
constexpr std::uint32_t kFaultsUntilHold = 16;
// After so many it is let go for a moment, so that the scheduler may find it a better processor.
constexpr std::uint32_t kFaultsOfHold = 20'000;

constexpr std::uint64_t kForeverNs = ~std::uint64_t{0};

}  // namespace

Result<std::unique_ptr<FaultMessages>> FaultMessages::start(Pager& pager) {
  os::Fd stop = ISTHMUS_TRY(os::create_event_fd());
  auto messages =
      std::unique_ptr<FaultMessages>(new FaultMessages(pager, std::move(stop)));
  const os::SignalBlock block;  // Inherited: no handler of the program runs in our thread.
  messages->thread_ = std::thread([raw = messages.get()] { raw->run(); });
  return messages;
}

FaultMessages::~FaultMessages() {
  os::signal(stop_.get());
  thread_.join();
}

void FaultMessages::run() {
  std::array<os::UffdEvent, kEventsAtOnce> events;
  const std::array<int, 2> fds{pager_.userfault().fd(), stop_.get()};
  for (;;) {
    const auto count = pager_.userfault().read_events(events);
    if (!count) os::end_process("userfaultfd gives no more messages");
    for (std::size_t index = 0; index < *count; ++index) {
      const os::UffdEvent& event = events[index];
      if (event.kind != os::UffdEventKind::kFault) continue;
      stay_with(event.thread_id);
      const ServeVerdict verdict = pager_.serve(event.address, event.access);
      if (verdict != ServeVerdict::kServed) os::end_process(last_words(verdict));
    }
    if (*count > 0) continue;
    const std::uint32_t ready = os::wait_readable(fds, kForeverNs);
    if ((ready & 2) != 0) return;
  }
}

void FaultMessages::stay_with(std::uint32_t thread_id) {
  ++faults_in_a_row_;
  if (thread_id != last_thread_ || faults_in_a_row_ == kFaultsOfHold) {
    let_go();
    last_thread_ = thread_id;
    faults_in_a_row_ = 1;
  }
  if (faults_in_a_row_ != kFaultsUntilHold) return;
  const auto processor = os::processor_of_thread(thread_id);
  if (!processor || !os::stay_on_processor(*processor)) return;
  const std::lock_guard guard(hold_lock_);
  hold_ = os::ProcessorHold::take(thread_id, *processor);
}

void FaultMessages::let_go() {
  const std::lock_guard guard(hold_lock_);
  hold_.reset();
}

}  // namespace isthmus::farmem
