// DirtyTracker tells which 64-byte lines of chosen pages were changed between two moments.
//
// Primer: start() copies the pages (their twins) and has the kernel mark what is written from now
// on (userfaultfd WP_ASYNC: 1 µs at the first write of a page, no fault to serve). collect() takes
// the marks, copies each marked page once, compares the copy with the twin, and brings the twin up
// to date; stop() does so for the last time. read() hands out what was collected. A kernel without
// WP_ASYNC (before 6.7) cannot say which pages were written: then every page is compared with its
// twin, and mechanism() says so. Twins cannot wait for the first write: that one is not announced.
//
// Exactness: a line whose bytes differ from the last collection, or from start(), is reported,
// whoever wrote it and however short before; no other line is, except that a page with more dirty
// lines than the threshold is reported whole. The flush rule: what another thread has stored but
// not yet brought to memory is drained before pages are compared. A store concurrent with
// collect() is in this collection or the next; concurrent with stop(), in it or in none. A line
// that was changed and changed back is not dirty: replicas therefore take bytes from
// read_packed(), which are those compared, and never from memory that has gone on changing.
// With a threshold of 0 there are no twins: pages written, also with the same bytes, are dirty.
//
// A page that is unmapped while tracked is left out and, where met, counted. One mapped anew in
// its place is compared each time.
//
// Several trackings may name the same pages, each exact by itself: the application's of its own
// pages and the system's, of which the application sees nothing but slower first writes.
//
// Threading: any thread; one lock for all trackings of a tracker. Threads that write tracked pages
// take no lock. A tracking belongs to the process that started it, not to children it forks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"
#include "memory/line_set.h"
#include "os/address_range.h"

namespace isthmus::memory {

enum class Mechanism : std::uint8_t {
  kWriteProtection,  // The kernel's marks say which pages to compare.
  kCompareAll,       // Every page is compared at each collection.
};
const char* to_string(Mechanism mechanism);

// Who asked. Results go to whoever holds the Tracking, so a system part keeps its own to itself.
enum class Initiator : std::uint8_t { kApplication, kSystem };

enum class TwinBase : std::uint8_t {
  kMemory,  // Dirty is what differs from the memory at start().
  kZeros,   // Everything but zeros is dirty at first: the first collection carries the whole.
};

constexpr std::size_t kMaxTrackedRanges = 65536;
constexpr std::size_t kMaxTrackedPages = std::size_t{1} << 28;  // 1 TiB.

struct TrackOptions {
  std::uint32_t threshold_lines = kLinesOfPage;  // 0: by page; 64: always by line.
  Initiator initiator = Initiator::kApplication;
  TwinBase base = TwinBase::kMemory;
};

struct DirtyPage {
  std::uint64_t address;
  LineMask lines;  // kAllLines: the whole page.
};

// Of one tracking since its start.
struct TrackCounters {
  std::uint64_t pages_compared = 0;
  std::uint64_t pages_dirty = 0;
  std::uint64_t lines_dirty = 0;   // As reported, so 64 for a whole page.
  std::uint64_t pages_whole = 0;   // Past the threshold.
  std::uint64_t pages_unreadable = 0;
};

class TrackerCore;
class TrackedPages;

// One set of pages from start() to stop(). Ends tracking when destroyed.
class Tracking {
 public:
  ~Tracking();
  Tracking(const Tracking&) = delete;
  Tracking& operator=(const Tracking&) = delete;

  Initiator initiator() const;
  std::size_t page_count() const;

  // Collects what was written since start() or the last collection, and goes on. kClosed: stopped.
  Result<void> collect();
  // Collects for the last time. What was collected can be read still. Again: nothing.
  void stop();

  // Takes collected pages, as many as there is room for; 0: no more. Each once per collection.
  std::size_t read(std::span<DirtyPage> buffer);
  // The same with the lines' bytes, as line_pack.h lays them out, pages numbered through the list
  // of ranges from 0. Bytes used; 0: no more. kInvalid: the buffer cannot hold one whole page.
  // kUnsupported: the threshold of 0 keeps no bytes.
  Result<std::size_t> read_packed(std::span<std::byte> buffer);

  TrackCounters counters() const;

 private:
  friend class DirtyTracker;
  Tracking(std::shared_ptr<TrackerCore> core, std::unique_ptr<TrackedPages> pages);

  std::shared_ptr<TrackerCore> core_;
  std::unique_ptr<TrackedPages> pages_;
};

class DirtyTracker {
 public:
  // Takes write protection where the kernel has it.
  static Result<std::unique_ptr<DirtyTracker>> create();
  // kUnsupported: write protection was asked for and is not there.
  static Result<std::unique_ptr<DirtyTracker>> create(Mechanism mechanism);

  Mechanism mechanism() const;
  // Why not write protection; empty when it is.
  const std::string& shortcoming() const { return shortcoming_; }

  // An empty list tracks nothing. kInvalid names the range that is not whole pages, overlaps
  // another of the list, is not mapped or cannot be read; kNoMemory: too many; kBusy: pages
  // served by another userfaultfd. What is written meanwhile may count as before or as after.
  Result<std::unique_ptr<Tracking>> start(std::span<const os::AddressRange> ranges,
                                          TrackOptions options);

 private:
  DirtyTracker(std::shared_ptr<TrackerCore> core, std::string shortcoming);

  std::shared_ptr<TrackerCore> core_;
  std::string shortcoming_;
};

}  // namespace isthmus::memory
