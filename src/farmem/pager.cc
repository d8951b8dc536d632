#include "farmem/pager.h"

#include <algorithm>

#include "os/clock.h"
#include "os/signal_block.h"

namespace isthmus::farmem {

struct Pager::Parts {
  std::unique_ptr<os::AnonymousMemory> memory;
  std::unique_ptr<os::Userfault> userfault;
  Store* store;
  std::unique_ptr<StoreChannel> channel;
  std::unique_ptr<PageTable> table;
  std::unique_ptr<SlotPool> slots;
  std::unique_ptr<Frames> frames;
  std::unique_ptr<Replacement> replacement;
  std::unique_ptr<os::AnonymousMemory> zeros;
  std::uint32_t slots_of_slab;
};

namespace {

Result<void> check(const Store& store, const PagerOptions& options) {
  if (options.region_bytes == 0 || options.region_bytes % os::kPageBytes != 0) {
    return fail(ErrorCode::kInvalid, "a far region of %llu bytes is not whole pages of 4096",
                static_cast<unsigned long long>(options.region_bytes));
  }
  if (options.region_bytes / os::kPageBytes > store.slot_count()) {
    return fail(ErrorCode::kNoMemory,
                "a far region of %llu bytes does not fit into the %llu that were reserved",
                static_cast<unsigned long long>(options.region_bytes),
                static_cast<unsigned long long>(store.slot_count() * os::kPageBytes));
  }
  if (options.local_bytes < kLeastLocalBytes) {
    return fail(ErrorCode::kInvalid, "%llu bytes of local memory are too few; at least %llu",
                static_cast<unsigned long long>(options.local_bytes),
                static_cast<unsigned long long>(kLeastLocalBytes));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<Pager>> Pager::create(Store& store, PagerOptions options) {
  ISTHMUS_TRY_VOID(check(store, options));
  Parts parts;
  parts.userfault = ISTHMUS_TRY(open_userfault(options.delivery));
  parts.memory = ISTHMUS_TRY(os::AnonymousMemory::create(options.region_bytes));
  const auto page_count = static_cast<std::uint32_t>(options.region_bytes / os::kPageBytes);
  const auto local_pages = static_cast<std::uint32_t>(
      std::min<std::uint64_t>(options.local_bytes / os::kPageBytes, page_count + kStagingFrames));
  parts.store = &store;
  parts.channel = ISTHMUS_TRY(store.open_channel(kStagingFrames));
  parts.table = ISTHMUS_TRY(PageTable::create(page_count));
  parts.slots = ISTHMUS_TRY(
      SlotPool::create({.page_count = page_count, .slot_count = store.slot_count()}));
  parts.frames = ISTHMUS_TRY(Frames::create(parts.channel->staging()));
  parts.replacement = ISTHMUS_TRY(Replacement::create(page_count, local_pages));
  parts.zeros = ISTHMUS_TRY(os::AnonymousMemory::create(os::kPageBytes));
  parts.slots_of_slab = store.slots_of_slab();

  auto pager = std::unique_ptr<Pager>(new Pager(options, std::move(parts)));
  pager->most_here_ = local_pages - kStagingFrames;
  pager->stats_.local_limit_pages = local_pages;
  ISTHMUS_TRY_VOID(pager->register_leaving_frames());
  ISTHMUS_TRY_VOID(pager->register_region());
  return pager;
}

Pager::Pager(PagerOptions options, Parts parts)
    : options_(options),
      // SAFETY: an address to compute with.
      region_{reinterpret_cast<std::uint64_t>(parts.memory->data()), parts.memory->size()},
      memory_(std::move(parts.memory)),
      userfault_(std::move(parts.userfault)),
      store_(parts.store),
      channel_(std::move(parts.channel)),
      table_(std::move(parts.table)),
      slots_(std::move(parts.slots)),
      frames_(std::move(parts.frames)),
      replacement_(std::move(parts.replacement)),
      zeros_(std::move(parts.zeros)),
      slots_of_slab_(parts.slots_of_slab),
      moves_pages_(userfault_->has(os::kUffdMove) && channel_->staging_may_be_remapped()),
      prefetcher_(options.prefetch) {}

Result<void> Pager::register_region() {
  return userfault_->register_range(region_, os::kUffdRegisterMissing | os::kUffdRegisterWp);
}

// What pages are moved to must be ours too. Nothing of it is touched before a page is there.
Result<void> Pager::register_leaving_frames() {
  if (!moves_pages_) return {};
  const auto leaving = frames_->leaving_bytes();
  // SAFETY: an address for the kernel.
  const os::AddressRange range{reinterpret_cast<std::uint64_t>(leaving.data()), leaving.size()};
  drop_.drop(std::span(&range, 1));
  return userfault_->register_range(range, os::kUffdRegisterMissing);
}

Result<std::unique_ptr<os::Userfault>> Pager::open_userfault(FaultDelivery delivery) {
  return os::Userfault::open(
      {.required = os::kUffdWp |
                   (delivery == FaultDelivery::kSignal ? os::kUffdSigbus : os::kUffdThreadId),
       .optional = os::kUffdMove});
}

Pager::~Pager() {
  const os::SignalBlock block;
  const Guard guard(lock_);
  while (under_way_ > 0) poll();  // Nothing may be when the staging frames go.
}

ServeVerdict Pager::serve(std::uint64_t address, os::UffdAccess access) {
  if (!contains(address)) return ServeVerdict::kForeign;
  const std::uint64_t start_ns = os::now_ns();
  Guard guard(lock_);
  ++stats_.faults;
  const ServeVerdict verdict = serve_locked(guard, page_of(address), access);
  stats_.fault_times.add(os::now_ns() - start_ns);
  return verdict;
}

void Pager::discard(os::AddressRange range) {
  const os::SignalBlock block;
  const Guard guard(lock_);
  const PageIndex first = page_of(range.start);
  const auto count = static_cast<std::uint32_t>(range.bytes / os::kPageBytes);
  bool any_here = false;
  for (PageIndex page = first; page < first + count; ++page) {
    switch (table_->state(page)) {
      case PageState::kEmpty: continue;
      case PageState::kClean:
      case PageState::kDirty:
        any_here = true;
        --stats_.pages_local;
        if (table_->pins(page) == 0) replacement_->remove(page);
        table_->set_pins(page, 0);
        break;
      case PageState::kStaged: {
        Frame& frame = frames_->at(table_->frame(page));
        frame.page = Frame::kNobody;
        if (frame.state == FrameState::kHolding) frame.state = FrameState::kFree;
        --stats_.pages_staged;
        break;
      }
      case PageState::kRemote:
      case PageState::kLost: --stats_.pages_remote; break;
    }
    table_->set_state(page, PageState::kEmpty);
    // One of our own is kept: what is under way may still be on its way there.
    if (slots_->has_shared(page)) slots_->drop(page);
  }
  if (any_here) drop_.drop(std::span(&range, 1));
}

Result<void> Pager::pin(os::AddressRange range, os::UffdAccess access) {
  const os::SignalBlock block;
  const PageIndex first = page_of(range.start);
  const auto count = static_cast<std::uint32_t>(range.bytes / os::kPageBytes);
  for (std::uint32_t done = 0; done < count; ++done) {
    const PageIndex page = first + done;
    Guard guard(lock_);
    ServeVerdict verdict = ServeVerdict::kServed;
    const PageState state = table_->state(page);
    const bool fits = state == PageState::kDirty ||
                      (state == PageState::kClean && access == os::UffdAccess::kRead);
    if (!fits) verdict = serve_locked(guard, page, access);
    const std::uint8_t pins = table_->pins(page);
    // What is left must hold what one instruction can touch, and an eviction's worth beside it.
    const bool room = pins > 0 || replacement_->count() > 2 * kEvictionBatch ||
                      stats_.pages_local < most_here_ / 2;
    if (verdict == ServeVerdict::kServed && room && pins < 255) {
      if (pins == 0) replacement_->remove(page);
      table_->set_pins(page, static_cast<std::uint8_t>(pins + 1));
      continue;
    }
    guard.unlock();
    if (done > 0) unpin({range.start, std::uint64_t{done} * os::kPageBytes});
    if (verdict == ServeVerdict::kLost) {
      return fail(ErrorCode::kIo, "a page of far memory cannot be reached any more");
    }
    return fail(ErrorCode::kNoMemory, "no room to keep %u pages here: %u are allowed", count,
                most_here_);
  }
  return {};
}

void Pager::unpin(os::AddressRange range) {
  const os::SignalBlock block;
  const Guard guard(lock_);
  const PageIndex first = page_of(range.start);
  const auto count = static_cast<std::uint32_t>(range.bytes / os::kPageBytes);
  for (PageIndex page = first; page < first + count; ++page) {
    const std::uint8_t pins = table_->pins(page);
    if (pins == 0) continue;
    table_->set_pins(page, static_cast<std::uint8_t>(pins - 1));
    if (pins == 1) replacement_->insert(page);
  }
}

void Pager::prefetch(os::AddressRange range) {
  const os::SignalBlock block;
  const Guard guard(lock_);
  if (channel_ == nullptr) return;
  const PageIndex first = page_of(range.start);
  const auto count = static_cast<std::uint32_t>(range.bytes / os::kPageBytes);
  std::uint32_t budget = kStagingFrames / 2;
  std::uint32_t tries = kStagingFrames;  // It is only a hint.
  for (PageIndex page = first; page < first + count && budget > 0;) {
    if (table_->state(page) != PageState::kRemote) {
      ++page;
      continue;
    }
    const std::uint32_t started = fetch_run(page, std::min(budget, first + count - page));
    if (started == 0) {  // The next frame is under way.
      if (tries-- == 0) return;
      poll();
      continue;
    }
    stats_.prefetched += started;
    page += started;
    budget -= started;
  }
}

PagerStats Pager::stats() const {
  const os::SignalBlock block;
  const Guard guard(lock_);
  return stats_;
}

}  // namespace isthmus::farmem
