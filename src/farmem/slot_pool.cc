#include "farmem/slot_pool.h"

#include <algorithm>

#include "base/assert.h"
#include "base/log.h"
#include "os/address_range.h"
#include "os/byte_lock.h"

namespace isthmus::farmem {
namespace {

// Of address space; memory is taken where a member has slots.
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 40;

constexpr std::size_t whole_pages(std::size_t bytes) {
  return (bytes + os::kPageBytes - 1) / os::kPageBytes * os::kPageBytes;
}

std::uint64_t packed(SlotRun run) { return std::uint64_t{run.first} << 32 | run.count; }
bool is_in(SlotIndex slot, std::uint64_t run) {
  return slot - static_cast<std::uint32_t>(run >> 32) < static_cast<std::uint32_t>(run);
}

static_assert(std::atomic<std::uint16_t>::is_always_lock_free &&
                  std::atomic<std::uint64_t>::is_always_lock_free,
              "processes share them");

}  // namespace

std::size_t SlotPool::slots_stride() const {
  return whole_pages(options_.page_count * sizeof(std::uint32_t)) / sizeof(std::uint32_t);
}

SlotPool::Sizes SlotPool::offsets_for(const Options& options) {
  Sizes at{};
  at.places = whole_pages(options.slot_count * sizeof(std::uint16_t));
  at.writers = at.places + whole_pages(options.most_members * sizeof(Place));
  at.slots = at.writers + whole_pages(std::size_t{options.most_members} * kMostWriters *
                                      sizeof(std::uint64_t));
  at.all = at.slots +
           options.most_members * whole_pages(options.page_count * sizeof(std::uint32_t));
  return at;
}

Result<std::unique_ptr<SlotPool>> SlotPool::create(Options options) {
  ISTHMUS_ASSERT(options.page_count <= options.slot_count && options.page_count > 0);
  const std::uint64_t of_member = options.page_count * sizeof(std::uint32_t);
  options.most_members = static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(kMostBytes / of_member, 1, options.most_members));
  const Sizes offsets = offsets_for(options);
  auto memory = ISTHMUS_TRY(os::AnonymousMemory::create_shared(offsets.all));
  os::Fd lock = ISTHMUS_TRY(os::create_lock_bytes("isthmus-far-family"));
  auto pool = std::unique_ptr<SlotPool>(
      new SlotPool(options, offsets, std::move(memory), std::move(lock)));
  pool->place(0) = os::try_lock_byte(pool->lock_, 0) ? Place::kMember : Place::kUnseen;
  return pool;
}

SlotPool::SlotPool(Options options, Sizes offsets, std::unique_ptr<os::AnonymousMemory> memory,
                   os::Fd lock)
    : options_(options), offsets_(offsets), memory_(std::move(memory)), lock_(std::move(lock)) {}

void SlotPool::set_slot(std::uint32_t place, PageIndex page, SlotIndex slot) {
  // Release: the counts are changed before and after it, also for whoever finds us dead.
  slots_of(place)[page].store(slot + 1, std::memory_order_release);
}

bool SlotPool::take(SlotIndex slot) {
  std::uint16_t nobody = 0;
  return references()[slot].compare_exchange_strong(nobody, 1, std::memory_order_acq_rel);
}

void SlotPool::release(SlotIndex slot) {
  // Release: pairs with is_shared() and take() of those who have it then.
  const std::uint16_t before = references()[slot].fetch_sub(1, std::memory_order_acq_rel);
  ISTHMUS_ASSERT(before > 0);
}

// The page's own number, so that neighbours here are neighbours there; else the one after the last
// that was found, for the same reason.
SlotIndex SlotPool::find(PageIndex page) {
  if (take(page)) return page;
  for (std::uint32_t looked = 0; looked < options_.slot_count; ++looked) {
    const SlotIndex slot = next_;
    next_ = next_ + 1 < options_.slot_count ? next_ + 1 : 0;
    // Relaxed: take() decides.
    if (references()[slot].load(std::memory_order_relaxed) == 0 && take(slot)) return slot;
  }
  return kNoSlot;
}

bool SlotPool::make_own(PageIndex page) {
  const SlotIndex old = slot(page);
  if (old != kNoSlot && !is_shared(old)) return true;
  const SlotIndex fresh = find(page);
  if (fresh == kNoSlot) return false;
  set_slot(place_, page, fresh);
  if (old != kNoSlot) release(old);
  return true;
}

void SlotPool::drop(PageIndex page) {
  const SlotIndex old = slot(page);
  if (old == kNoSlot) return;
  set_slot(place_, page, kNoSlot);
  release(old);
}

void SlotPool::begin_write(std::uint32_t writer, SlotRun run) {
  ISTHMUS_ASSERT(writer < kMostWriters);
  writers_of(place_)[writer].store(packed(run), std::memory_order_release);
}

void SlotPool::end_write(std::uint32_t writer) {
  writers_of(place_)[writer].store(0, std::memory_order_release);
}

std::optional<std::uint32_t> SlotPool::take_place(const os::Fd& lock) {
  for (std::uint32_t index = 0; index < options_.most_members; ++index) {
    if (place(index) != Place::kFree || (lock && !os::try_lock_byte(lock, index))) continue;
    Place free = Place::kFree;
    if (place(index).compare_exchange_strong(free, lock ? Place::kMember : Place::kUnseen)) {
      return index;
    }
    if (lock) os::unlock_byte(lock, index);
  }
  return std::nullopt;
}

void SlotPool::before_fork() {
  if (!is_member()) return;
  // Without one (a program that has changed its root, or has no descriptor left) nobody will see
  // the child's end, and its slots stay taken.
  auto lock = os::open_again(lock_);
  if (lock) childs_lock_ = std::move(*lock);
  const auto found = take_place(childs_lock_);
  if (!found) {
    ISTHMUS_LOG(kWarning, "a child of fork() will not reach far memory: %u others have it already",
                options_.most_members);
    return;
  }
  childs_place_ = *found;
  for (PageIndex page = 0; page < options_.page_count; ++page) {
    const SlotIndex shared = slot(page);
    if (shared == kNoSlot) continue;
    references()[shared].fetch_add(1, std::memory_order_relaxed);
    set_slot(childs_place_, page, shared);
  }
}

// If fork() failed, nobody has the child's lock now: it counts as one that has ended.
void SlotPool::after_fork_in_parent() {
  childs_lock_.reset();
  childs_place_ = kNoPlace;
}

void SlotPool::after_fork_in_child() {
  // A new number: the one from before may be one that the program takes for its own.
  auto own = childs_lock_.duplicate();
  lock_ = own ? std::move(*own) : std::move(childs_lock_);
  childs_lock_.reset();
  place_ = childs_place_;
  childs_place_ = kNoPlace;
}

std::uint32_t SlotPool::forget_dead_members() {
  if (!is_member()) return 0;
  std::uint32_t dead = 0;
  for (std::uint32_t index = 0; index < options_.most_members; ++index) {
    if (index == place_ || place(index) != Place::kMember) continue;
    // Whoever has it now is alive, or is doing this; one that dies at it leaves the rest to others.
    if (!os::try_lock_byte(lock_, index)) continue;
    if (place(index) == Place::kMember) {
      forget_member(index);
      place(index) = Place::kFree;
      ++dead;
    }
    os::unlock_byte(lock_, index);
  }
  return dead;
}

bool SlotPool::is_alone() const {
  for (std::uint32_t index = 0; index < options_.most_members; ++index) {
    if (index != place_ && place(index) != Place::kFree) return false;
  }
  return true;
}

void SlotPool::forget_member(std::uint32_t dead) {
  std::atomic<std::uint64_t>* const writers = writers_of(dead);
  const auto was_writing = [&](SlotIndex slot) {
    return std::any_of(writers, writers + kMostWriters,
                       [slot](const std::atomic<std::uint64_t>& run) { return is_in(slot, run); });
  };
  const bool any_writes =
      std::any_of(writers, writers + kMostWriters,
                  [](const std::atomic<std::uint64_t>& run) { return run != 0; });
  for (PageIndex page = 0; page < options_.page_count; ++page) {
    const SlotIndex slot = slots_of(dead)[page] - 1;
    if (slot == kNoSlot) continue;
    set_slot(dead, page, kNoSlot);
    if (!any_writes || !was_writing(slot)) release(slot);
  }
  std::fill(writers, writers + kMostWriters, 0);
  const std::size_t first = offsets_.slots + dead * slots_stride() * sizeof(std::uint32_t);
  memory_->discard_shared(first, slots_stride() * sizeof(std::uint32_t));
}

}  // namespace isthmus::farmem
