// The start of far memory in a program, before its main(): the environment is read, the store
// connected, the pager made. From then on what the program allocates is far. What its libraries
// allocated before, while they were being loaded, is local for ever.
#include <cstdlib>
#include <optional>
#include <vector>

#include "preload/interpose/far_allocator.h"
#include "preload/interpose/far_callers.h"
#include "preload/interpose/far_calls.h"
#include "preload/interpose/far_descriptors.h"
#include "preload/interpose/far_runtime.h"
#include "preload/interpose/far_store.h"
#include "preload/interpose/far_watch.h"
#include "farmem/fault_signal.h"
#include "farmem/view.h"
#include "os/last_words.h"
#include "os/low_descriptors.h"
#include "preload/far_settings.h"

namespace isthmus::preload {
namespace {

constinit farmem::ViewPublisher* the_view = nullptr;

struct FarMemory {
  std::unique_ptr<farmem::Store> store;
  std::unique_ptr<farmem::Pager> pager;
  std::unique_ptr<farmem::FaultMessages> messages;  // Or by signal:
  std::unique_ptr<farmem::FaultSignal> signal;
  std::unique_ptr<farmem::ViewPublisher> view;
};

// Messages serve system calls too, and cost the program nothing but at a fault; signals are there
// for everybody, and catch every system call.
Result<farmem::FaultDelivery> delivery_of(const FarSettings& settings) {
  if (settings.faults) return *settings.faults;
  const auto userfault = ISTHMUS_TRY(os::Userfault::open({}));
  return userfault->origin() == os::UffdOrigin::kUserModeOnly ? farmem::FaultDelivery::kSignal
                                                              : farmem::FaultDelivery::kMessage;
}

Result<FarMemory> make_far_memory(const FarSettings& settings) {
  FarMemory made;
  const farmem::FaultDelivery delivery = ISTHMUS_TRY(delivery_of(settings));
  made.store = ISTHMUS_TRY(connect_far_store(settings));
  made.pager = ISTHMUS_TRY(farmem::Pager::create(*made.store,
                                                 {.region_bytes = settings.far_bytes,
                                                  .local_bytes = settings.local_bytes,
                                                  .delivery = delivery,
                                                  .prefetch = settings.prefetch}));
  if (delivery == farmem::FaultDelivery::kSignal) {
    made.signal = ISTHMUS_TRY(start_fault_signal(*made.pager));
  } else if (made.pager->userfault().origin() == os::UffdOrigin::kUserModeOnly) {
    return fail(ErrorCode::kDenied,
                "the kernel does not let this user serve page faults of system calls, as --faults "
                "message does; leave it out, run as root, or let the user open /dev/userfaultfd");
  } else {
    made.messages = ISTHMUS_TRY(farmem::FaultMessages::start(*made.pager));
  }
  made.view = ISTHMUS_TRY(farmem::ViewPublisher::create(*made.pager));
  return made;
}

Result<void> start(const FarSettings& settings) {
  ISTHMUS_TRY_VOID(find_heaps());
  const std::vector<int> before = os::open_descriptors();
  std::optional<os::LowDescriptors> low{std::in_place};
  FarMemory made = ISTHMUS_TRY(make_far_memory(settings));
  ISTHMUS_TRY_VOID(start_watch());
  const os::AddressRange region = made.pager->region();
  far_runtime.odd = ISTHMUS_TRY(PageMarks::create(region)).release();
  far_runtime.kept = ISTHMUS_TRY(PageMarks::create(region)).release();
  far_runtime.locked = ISTHMUS_TRY(PageMarks::create(region)).release();
  far_runtime.ranges = ISTHMUS_TRY(farmem::FarRanges::create(region)).release();
  // All of it stays until the process is gone: other threads may run to the very end.
  made.store.release();
  const bool by_signal = made.signal != nullptr;
  made.signal.release();
  far_runtime.pager = made.pager.release();
  far_runtime.messages = made.messages.release();
  the_view = made.view.release();
  far_runtime.start = region.start;
  low.reset();
  protect_descriptors(before);
  // Release: with the loads in is_far(), which find all of the above.
  far_runtime.bytes.store(region.bytes, std::memory_order_release);
  return by_signal ? start_far_calls() : Result<void>{};
}

// Whether there is far memory now.
bool start_as_asked() {
  const RuntimeScope scope;
  const auto settings = read_far_settings([](const char* name) { return std::getenv(name); });
  if (!settings) os::end_process(settings.error().message.c_str());
  if (!settings->has_value()) return false;
  const auto started = start(**settings);
  if (!started) {
    os::end_process(("far memory cannot be used: " + started.error().message).c_str());
  }
  return true;
}

[[gnu::constructor]] void start_far_memory() {
  if (start_as_asked()) use_up_early_extents();
}

// Other destructors may still allocate and touch far memory: it goes on to the very end.
[[gnu::destructor]] void write_last_view() {
  if (the_view != nullptr && far_runtime.pager != nullptr) the_view->write_last();
}

}  // namespace
}  // namespace isthmus::preload
