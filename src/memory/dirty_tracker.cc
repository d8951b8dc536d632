#include "memory/dirty_tracker.h"

#include <algorithm>
#include <array>
#include <mutex>
#include <vector>

#include "memory/tracked_pages.h"
#include "os/pagemap.h"
#include "os/userfault.h"

namespace isthmus::memory {

// What the trackings of one tracker share: the descriptor whose marks they all read, so whoever
// takes a mark passes it on to every tracking that has the page.
class TrackerCore {
 public:
  // Null: compare all.
  TrackerCore(std::unique_ptr<os::Userfault> userfault, std::unique_ptr<os::Pagemap> pagemap)
      : userfault_(std::move(userfault)), pagemap_(std::move(pagemap)) {}

  std::mutex& mutex() { return mutex_; }
  Mechanism mechanism() const {
    return userfault_ ? Mechanism::kWriteProtection : Mechanism::kCompareAll;
  }

  // All with the lock held.
  Result<void> add(TrackedPages& pages);
  void remove(TrackedPages& pages);
  bool has(const TrackedPages& pages) const {
    return std::ranges::find(active_, &pages) != active_.end();
  }
  void collect(TrackedPages& pages);

 private:
  Result<void> arm(const TrackedPages& pages, std::size_t& registered);
  void take_marks(os::AddressRange range);
  void release(os::AddressRange range);

  std::mutex mutex_;
  std::unique_ptr<os::Userfault> userfault_;
  std::unique_ptr<os::Pagemap> pagemap_;
  std::vector<TrackedPages*> active_;
  std::array<os::PageRun, 1024> runs_;
};

Result<void> TrackerCore::add(TrackedPages& pages) {
  std::size_t registered = 0;
  Result<void> started = arm(pages, registered);
  // Twins after the marks: what is written in between is at worst compared in vain.
  if (started) started = pages.take_twins();
  if (started) {
    active_.push_back(&pages);
  } else {
    // Only what we registered: the rest may be served by somebody else.
    for (std::size_t i = 0; i < registered; ++i) release(pages.ranges()[i]);
  }
  return started;
}

Result<void> TrackerCore::arm(const TrackedPages& pages, std::size_t& registered) {
  if (!userfault_) return {};
  for (const os::AddressRange range : pages.ranges()) {
    ISTHMUS_TRY_VOID(userfault_->register_range(range, os::kUffdRegisterWp));
    ++registered;
    const bool shared = std::ranges::any_of(
        active_, [&](const TrackedPages* other) { return other->overlaps(range); });
    if (shared) {
      take_marks(range);
      continue;
    }
    const os::UffdProgress armed = userfault_->protect(range, os::UffdProtection::kOn);
    if (armed.verdict != os::UffdVerdict::kDone) {
      return fail(ErrorCode::kInvalid, "the pages to track at %#llx cannot be protected: %s",
                  static_cast<unsigned long long>(range.start), os::to_string(armed.verdict));
    }
  }
  return {};
}

// Takes and clears the marks of the range, for every tracking that has a part of it.
void TrackerCore::take_marks(os::AddressRange range) {
  const auto mark = [this](std::uint64_t start, std::uint64_t end) {
    for (TrackedPages* each : active_) each->suspect(start, end);
  };
  for (std::uint64_t at = range.start; at < range.end();) {
    const auto step = pagemap_->scan_written({at, range.end() - at}, runs_,
                                             os::AfterScan::kProtectAgain);
    if (!step) {
      // Somebody mapped other memory there. Comparing is exact, however the marks are.
      mark(at, range.end());
      return;
    }
    for (std::size_t i = 0; i < step->runs; ++i) mark(runs_[i].start, runs_[i].end);
    at = step->resume_at;
  }
}

void TrackerCore::collect(TrackedPages& pages) {
  for (const os::AddressRange range : pages.ranges()) {
    if (userfault_) {
      take_marks(range);
    } else {
      pages.suspect(range.start, range.end());
    }
  }
  // The flush rule. Where the kernel cannot, taking the marks has interrupted every processor.
  os::drain_stores_of_all_threads();
  pages.compare_suspects();
}

void TrackerCore::remove(TrackedPages& pages) {
  std::erase(active_, &pages);
  if (!userfault_) return;
  for (const os::AddressRange range : pages.ranges()) release(range);
}

// Unregisters what of the range no active tracking has.
void TrackerCore::release(os::AddressRange range) {
  std::vector<os::AddressRange> kept;
  for (const TrackedPages* each : active_) {
    for (const os::AddressRange other : each->ranges()) {
      if (other.start < range.end() && range.start < other.end()) kept.push_back(other);
    }
  }
  std::ranges::sort(kept, {}, &os::AddressRange::start);
  std::uint64_t at = range.start;
  const auto drop_until = [&](std::uint64_t end) {
    // A failure means that the memory is gone, and its registration with it.
    if (at < end) (void)userfault_->unregister_range({at, end - at});
  };
  for (const os::AddressRange other : kept) {
    drop_until(other.start);
    at = std::max(at, other.end());
  }
  drop_until(range.end());
}

const char* to_string(Mechanism mechanism) {
  return mechanism == Mechanism::kWriteProtection ? "write protection" : "compare all";
}

Tracking::Tracking(std::shared_ptr<TrackerCore> core, std::unique_ptr<TrackedPages> pages)
    : core_(std::move(core)), pages_(std::move(pages)) {}

Tracking::~Tracking() {
  const std::scoped_lock lock{core_->mutex()};
  if (core_->has(*pages_)) core_->remove(*pages_);
}

Initiator Tracking::initiator() const { return pages_->options().initiator; }
std::size_t Tracking::page_count() const { return pages_->page_count(); }

Result<void> Tracking::collect() {
  const std::scoped_lock lock{core_->mutex()};
  if (!core_->has(*pages_)) return fail(ErrorCode::kClosed, "this tracking was stopped");
  core_->collect(*pages_);
  return {};
}

void Tracking::stop() {
  const std::scoped_lock lock{core_->mutex()};
  if (!core_->has(*pages_)) return;
  core_->collect(*pages_);
  core_->remove(*pages_);
}

std::size_t Tracking::read(std::span<DirtyPage> buffer) {
  const std::scoped_lock lock{core_->mutex()};
  return pages_->read(buffer);
}

Result<std::size_t> Tracking::read_packed(std::span<std::byte> buffer) {
  const std::scoped_lock lock{core_->mutex()};
  return pages_->read_packed(buffer);
}

TrackCounters Tracking::counters() const {
  const std::scoped_lock lock{core_->mutex()};
  return pages_->counters();
}

DirtyTracker::DirtyTracker(std::shared_ptr<TrackerCore> core, std::string shortcoming)
    : core_(std::move(core)), shortcoming_(std::move(shortcoming)) {}

Mechanism DirtyTracker::mechanism() const { return core_->mechanism(); }

Result<std::unique_ptr<DirtyTracker>> DirtyTracker::create() {
  auto best = create(Mechanism::kWriteProtection);
  if (best) return best;
  auto other = create(Mechanism::kCompareAll);
  if (other) (*other)->shortcoming_ = best.error().message;
  return other;
}

Result<std::unique_ptr<DirtyTracker>> DirtyTracker::create(Mechanism mechanism) {
  std::unique_ptr<os::Userfault> userfault;
  std::unique_ptr<os::Pagemap> pagemap;
  if (mechanism == Mechanism::kWriteProtection) {
    pagemap = ISTHMUS_TRY(os::Pagemap::open());
    userfault = ISTHMUS_TRY(os::Userfault::open(
        {.required = os::kUffdWp | os::kUffdWpAsync | os::kUffdWpUnpopulated,
         .optional = os::kUffdWpShared}));
  }
  return std::unique_ptr<DirtyTracker>(new DirtyTracker(
      std::make_shared<TrackerCore>(std::move(userfault), std::move(pagemap)),
      mechanism == Mechanism::kCompareAll ? "comparing all pages was asked for" : ""));
}

Result<std::unique_ptr<Tracking>> DirtyTracker::start(std::span<const os::AddressRange> ranges,
                                                      TrackOptions options) {
  const bool by_page = options.threshold_lines == 0 && mechanism() == Mechanism::kWriteProtection;
  auto pages = ISTHMUS_TRY(
      TrackedPages::create(ranges, options, by_page ? Twins::kNone : Twins::kKept));
  {
    const std::scoped_lock lock{core_->mutex()};
    ISTHMUS_TRY_VOID(core_->add(*pages));
  }
  return std::unique_ptr<Tracking>(new Tracking(core_, std::move(pages)));
}

}  // namespace isthmus::memory
