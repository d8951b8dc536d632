#include "farmem/fault_signal.h"

#include <array>
#include <atomic>

#include "os/bus_error.h"
#include "os/last_words.h"

namespace isthmus::farmem {
namespace {

std::array<std::atomic<Pager*>, kMostSignalPagers> the_pagers;

constinit AroundServing around_serving;

// A fault of the handler itself would come here again: its own memory is never far, so that is
// our mistake, and a lock that waits for itself would hide it.
thread_local bool serving [[gnu::tls_model("initial-exec")]] = false;

os::BusVerdict on_fault(std::uint64_t address, os::BusAccess access) {
  for (const std::atomic<Pager*>& entry : the_pagers) {
    Pager* pager = entry.load(std::memory_order_acquire);  // Pairs with start().
    if (pager == nullptr || !pager->contains(address)) continue;
    if (serving) os::end_process("the far-memory runtime touched far memory itself");
    serving = true;
    if (around_serving.enter != nullptr) around_serving.enter();
    const ServeVerdict verdict = pager->serve(
        address,
        access == os::BusAccess::kWrite ? os::UffdAccess::kWrite : os::UffdAccess::kRead);
    if (around_serving.leave != nullptr) around_serving.leave();
    serving = false;
    if (verdict != ServeVerdict::kServed) os::end_process(last_words(verdict));
    return os::BusVerdict::kResolved;
  }
  return os::BusVerdict::kForeign;
}

}  // namespace

const char* last_words(ServeVerdict verdict) {
  switch (verdict) {
    case ServeVerdict::kLost:
      return "far memory is lost: no memory node that has this page can be reached any more; "
             "--replicas 2 keeps every page on two";
    case ServeVerdict::kFull:
      return "no local memory is left for a far page: the limit is taken up by pinned pages, or "
             "the kernel has none; raise --local-memory";
    case ServeVerdict::kOrphan:
      return "a child of fork() needs a page that is on a memory node, and could not connect to "
             "it; the warnings above say why";
    case ServeVerdict::kCrowded:
      return "far memory is too small for a program and its children of fork(): each page that "
             "differs between them needs room of its own; raise --far-memory";
    case ServeVerdict::kForeign:
    case ServeVerdict::kServed: break;
  }
  return "a far page was unmapped while it was being fetched";
}

Result<std::unique_ptr<FaultSignal>> FaultSignal::start(Pager& pager, AroundServing around) {
  if (around.enter != nullptr) around_serving = around;
  ISTHMUS_TRY_VOID(os::catch_bus_errors(on_fault));
  for (std::size_t place = 0; place < the_pagers.size(); ++place) {
    Pager* free = nullptr;
    // Pairs with the load in on_fault().
    if (the_pagers[place].compare_exchange_strong(free, &pager, std::memory_order_acq_rel)) {
      return std::unique_ptr<FaultSignal>(new FaultSignal(place));
    }
  }
  return fail(ErrorCode::kNoMemory, "a process can have %zu far regions served by signal",
              kMostSignalPagers);
}

FaultSignal::~FaultSignal() { the_pagers[place_].store(nullptr, std::memory_order_release); }

}  // namespace isthmus::farmem
