// TrackedPages: the pages of one tracking, their twins, which of them may have changed, and what
// was found dirty. Knows nothing of how writes are noticed.
//
// Threading: confined to the lock of its tracker.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "memory/dirty_tracker.h"
#include "memory/line_set.h"
#include "os/address_range.h"
#include "os/anonymous_memory.h"
#include "os/process_memory.h"

namespace isthmus::memory {

enum class Twins : std::uint8_t { kNone, kKept };

class TrackedPages {
 public:
  // Checks the list. No twin is taken yet.
  static Result<std::unique_ptr<TrackedPages>> create(std::span<const os::AddressRange> ranges,
                                                      TrackOptions options, Twins twins);

  const TrackOptions& options() const { return options_; }
  const std::vector<os::AddressRange>& ranges() const { return ranges_; }  // As given.
  std::size_t page_count() const { return page_count_; }
  bool overlaps(os::AddressRange range) const;

  // Copies the pages into their twins, or finds all suspect when the twins are to be zeros.
  Result<void> take_twins();

  // The pages within [start, end) may have changed; what is not ours is passed over.
  void suspect(std::uint64_t start, std::uint64_t end);
  // Compares the suspects with their twins and adds what differs to what can be read.
  void compare_suspects();

  std::size_t read(std::span<DirtyPage> buffer);
  Result<std::size_t> read_packed(std::span<std::byte> buffer);
  const TrackCounters& counters() const { return counters_; }

 private:
  // A range with the number of its first page.
  struct Piece {
    os::AddressRange range;
    std::size_t first_page;
  };

  TrackedPages(std::vector<Piece> pieces, std::size_t page_count, TrackOptions options);

  std::uint64_t address_of(std::size_t page) const;
  std::span<std::byte, kPageBytes> twin_of(std::size_t page) const;
  void compare_batch(std::span<const std::size_t> pages);
  void found(std::size_t page, LineMask lines);

  std::vector<os::AddressRange> ranges_;
  std::vector<Piece> by_page_;     // In the order of the list.
  std::vector<Piece> by_address_;
  std::size_t page_count_;
  TrackOptions options_;
  os::ProcessMemory memory_;
  std::unique_ptr<os::AnonymousMemory> twins_;      // Null: none are kept.
  std::unique_ptr<os::AnonymousMemory> snapshots_;  // One batch.
  std::vector<std::uint64_t> suspects_;             // One bit a page.
  LineSet dirty_;
  TrackCounters counters_;
};

}  // namespace isthmus::memory
