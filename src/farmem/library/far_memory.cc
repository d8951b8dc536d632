// The C interface of far memory (include/isthmus/far_memory.h) over the pager.
#include <isthmus/far_memory.h>

#include <pthread.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <ranges>
#include <string>
#include <vector>

#include "farmem/encrypt/encrypted_store.h"
#include "farmem/far_ranges.h"
#include "farmem/fault_messages.h"
#include "farmem/fault_signal.h"
#include "farmem/node_address.h"
#include "farmem/pager.h"
#include "farmem/remote/verbs_store.h"
#include "farmem/view.h"
#include "os/last_words.h"
#include "os/process.h"

using namespace isthmus;

// In the order of their making: the last ends first.
struct isthmus_far {
  std::unique_ptr<farmem::Store> store;
  std::unique_ptr<farmem::Pager> pager;
  std::unique_ptr<farmem::FaultSignal> signal;
  std::unique_ptr<farmem::FaultMessages> messages;
  std::unique_ptr<farmem::ViewPublisher> view;  // For `isthmus memory stats`.
  std::mutex lock;
  std::unique_ptr<farmem::FarRanges> ranges;  // Under the lock.
};

namespace {

thread_local std::string the_message;

int failed(const Error& error) {
  the_message = error.message;
  return static_cast<int>(error.code);
}

std::uint64_t whole_pages(std::uint64_t bytes) {
  return (bytes + os::kPageBytes - 1) & ~(os::kPageBytes - 1);
}

std::uint64_t address_of(const void* memory) {
  // SAFETY: a number to compute with.
  return reinterpret_cast<std::uint64_t>(memory);
}

// The pages that these bytes touch, as far as they are in the region.
os::AddressRange pages_of(const isthmus_far& far, const void* memory, std::size_t bytes) {
  const os::AddressRange region = far.pager->region();
  const std::uint64_t start = address_of(memory) & ~(os::kPageBytes - 1);
  const std::uint64_t end = whole_pages(address_of(memory) + bytes);
  if (start < region.start || end > region.end() || end <= start) return {};
  return {start, end - start};
}

int outside() {
  the_message = "these bytes are not in the far region";
  return EINVAL;
}

Result<std::unique_ptr<farmem::Store>> open_store(const isthmus_far_options& options) {
  farmem::VerbsStoreOptions wanted;
  wanted.nodes = ISTHMUS_TRY(
      farmem::parse_node_addresses(options.nodes == nullptr ? "" : options.nodes));
  wanted.bytes = options.far_bytes;
  wanted.replicas = options.replicas == 0 ? 1 : options.replicas;
  wanted.label = os::program_name();
  std::unique_ptr<farmem::Store> store = ISTHMUS_TRY(farmem::VerbsStore::connect(wanted));
  if ((options.flags & ISTHMUS_FAR_ENCRYPT) == 0) return store;
  return ISTHMUS_TRY(farmem::EncryptedStore::create(std::move(store)));
}

Result<farmem::PrefetchPolicy> policy_of(unsigned prefetch) {
  switch (prefetch) {
    case ISTHMUS_FAR_PREFETCH_ADAPTIVE: return farmem::PrefetchPolicy::kAdaptive;
    case ISTHMUS_FAR_PREFETCH_NONE: return farmem::PrefetchPolicy::kNone;
    case ISTHMUS_FAR_PREFETCH_NEXT: return farmem::PrefetchPolicy::kNext;
    default: return fail(ErrorCode::kInvalid, "there is no prefetch policy %u", prefetch);
  }
}

Result<std::unique_ptr<isthmus_far>> create(const isthmus_far_options& options) {
  auto far = std::make_unique<isthmus_far>();
  const bool messages = (options.flags & ISTHMUS_FAR_MESSAGES) != 0;
  farmem::PagerOptions wanted{
      .region_bytes = whole_pages(options.far_bytes),
      .local_bytes = options.local_bytes,
      .delivery = messages ? farmem::FaultDelivery::kMessage : farmem::FaultDelivery::kSignal,
      .prefetch = ISTHMUS_TRY(policy_of(options.prefetch))};
  far->store = ISTHMUS_TRY(open_store(options));
  far->pager = ISTHMUS_TRY(farmem::Pager::create(*far->store, wanted));
  if (messages) {
    far->messages = ISTHMUS_TRY(farmem::FaultMessages::start(*far->pager));
  } else {
    far->signal = ISTHMUS_TRY(farmem::FaultSignal::start(*far->pager));
  }
  far->view = ISTHMUS_TRY(farmem::ViewPublisher::create(*far->pager));
  far->ranges = ISTHMUS_TRY(farmem::FarRanges::create(far->pager->region()));
  return far;
}

// All of this process, for fork().
std::mutex regions_lock;
std::vector<isthmus_far*> regions;  // Under the lock.

void before_fork() {
  regions_lock.lock();
  for (isthmus_far* far : regions) {
    far->lock.lock();
    if (far->messages) far->messages->let_go();
    far->pager->before_fork();
  }
}

void after_fork_in_parent() {
  for (isthmus_far* far : regions | std::views::reverse) {
    far->pager->after_fork_in_parent();
    far->lock.unlock();
  }
  regions_lock.unlock();
}

// Threads and connections are the parent's, and left alone.
Result<void> renew_in_child(isthmus_far& far) {
  ISTHMUS_TRY_VOID(far.pager->after_fork_in_child());
  static_cast<void>(far.store.release());
  if (far.messages) {
    static_cast<void>(far.messages.release());
    far.messages = ISTHMUS_TRY(farmem::FaultMessages::start(*far.pager));
    // Nobody would do it in time when the parent has ended.
    far.pager->join_store();
  }
  return {};
}

void after_fork_in_child() {
  for (isthmus_far* far : regions | std::views::reverse) {
    const auto renewed = renew_in_child(*far);
    if (!renewed) os::end_process(renewed.error().message.c_str());
    far->lock.unlock();
  }
  regions_lock.unlock();
}

// After the store is there: in a child, the handlers of the verbs libraries come before ours.
void enlist(isthmus_far& far) {
  static const int handlers =
      pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
  static_cast<void>(handlers);
  const std::lock_guard guard(regions_lock);
  regions.push_back(&far);
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int isthmus_far_create(const struct isthmus_far_options* options, struct isthmus_far** far) {
  auto made = create(*options);
  if (!made) return failed(made.error());
  *far = made->release();
  enlist(**far);
  return 0;
}

void isthmus_far_destroy(struct isthmus_far* far) {
  {
    const std::lock_guard guard(regions_lock);
    std::erase(regions, far);
  }
  far->pager->note_end();
  delete far;
}

void* isthmus_far_allocate(struct isthmus_far* far, size_t bytes) {
  const std::lock_guard guard(far->lock);
  const std::uint64_t whole = whole_pages(bytes);
  const auto range = whole < bytes || bytes == 0 ? std::nullopt : far->ranges->take(whole);
  if (!range) {
    errno = bytes == 0 ? EINVAL : ENOMEM;
    return nullptr;
  }
  // SAFETY: pages of the region that nobody else has.
  return reinterpret_cast<void*>(range->start);
}

void isthmus_far_free(struct isthmus_far* far, void* memory, size_t bytes) {
  const os::AddressRange range = pages_of(*far, memory, bytes);
  if (range.bytes == 0) return;
  far->pager->discard(range);
  const std::lock_guard guard(far->lock);
  far->ranges->give_back(range);
}

int isthmus_far_advise(struct isthmus_far* far, void* memory, size_t bytes,
                       enum isthmus_far_advice advice) {
  const os::AddressRange range = pages_of(*far, memory, bytes);
  if (range.bytes == 0) return outside();
  switch (advice) {
    case ISTHMUS_FAR_WILL_NEED: far->pager->prefetch(range); return 0;
    case ISTHMUS_FAR_DONT_NEED:
      if (range.bytes != bytes || range.start != address_of(memory)) {
        the_message = "only whole pages can be given up";
        return EINVAL;
      }
      far->pager->discard(range);
      return 0;
  }
  the_message = "there is no such advice";
  return EINVAL;
}

int isthmus_far_pin(struct isthmus_far* far, void* memory, size_t bytes) {
  const os::AddressRange range = pages_of(*far, memory, bytes);
  if (range.bytes == 0) return outside();
  const auto pinned = far->pager->pin(range, os::UffdAccess::kWrite);
  return pinned ? 0 : failed(pinned.error());
}

void isthmus_far_unpin(struct isthmus_far* far, void* memory, size_t bytes) {
  const os::AddressRange range = pages_of(*far, memory, bytes);
  if (range.bytes > 0) far->pager->unpin(range);
}

void isthmus_far_get_stats(struct isthmus_far* far, struct isthmus_far_stats* stats) {
  const farmem::PagerStats now = far->pager->stats();
  *stats = {.pages_local = now.pages_local,
            .pages_remote = now.pages_remote,
            .faults = now.faults,
            .faults_remote = now.faults_remote,
            .pages_read = now.pages_read,
            .pages_written = now.pages_written,
            .pages_prefetched = now.prefetched};
}

const char* isthmus_far_message(void) { return the_message.c_str(); }

}  // extern "C"
#pragma GCC visibility pop
