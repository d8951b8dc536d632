// Replacement: which page to evict next, after S3-FIFO.
//
// Primer: there are no accessed bits. A page enters a small queue; when its turn comes there and
// something has shown it to be used meanwhile, it goes on to the main queue, else it is evicted.
// What was evicted lately and comes back was evicted too early and enters the main queue at once.
// So a scan passes through the small queue and leaves the main one alone. What shows use: the
// first write to a clean page, and coming back while still in a staging frame.
//
// Threading: under the pager's lock.
// Source: Yang et al., "FIFO queues are all you need for cache eviction", SOSP 2023.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "farmem/page_table.h"
#include "os/anonymous_memory.h"

namespace isthmus::farmem {

class Replacement {
 public:
  // For pages 0 to page_count - 1, of which at most `capacity` are here at once.
  static Result<std::unique_ptr<Replacement>> create(std::uint32_t page_count,
                                                     std::uint32_t capacity);

  // It is here from now on.
  void insert(PageIndex page);
  // It is not any more, for a reason other than choose().
  void remove(PageIndex page);
  void note_use(PageIndex page);
  // It was evicted but is here again already: evicted too early.
  void insert_used(PageIndex page);

  // Chooses up to victims.size() pages and takes them out.
  std::uint32_t choose(std::span<PageIndex> victims);

  std::uint32_t count() const { return small_.count + main_.count; }

 private:
  static constexpr PageIndex kNone = 0;  // Links are page + 1.

  enum class Place : std::uint8_t { kOut, kSmall, kMain };
  struct Link {
    std::uint32_t newer;  // Page + 1, or kNone.
    std::uint32_t older;
    std::uint32_t evicted_at;  // Counts evictions; 0: never.
    Place place;
    bool used;
  };
  struct Queue {
    std::uint32_t newest = kNone;
    std::uint32_t oldest = kNone;
    std::uint32_t count = 0;
  };

  Replacement(std::unique_ptr<os::AnonymousMemory> memory, std::uint32_t capacity);

  Link& link(PageIndex page) const { return reinterpret_cast<Link*>(memory_->data())[page]; }
  Queue& queue_of(const Link& link) { return link.place == Place::kSmall ? small_ : main_; }
  void push(Queue& queue, PageIndex page, Place place);
  void unlink(PageIndex page);
  bool evicted_lately(const Link& link) const;

  std::unique_ptr<os::AnonymousMemory> memory_;
  Queue small_;
  Queue main_;
  std::uint32_t small_target_;
  std::uint32_t ghosts_;       // How many evictions are lately.
  std::uint32_t evictions_ = 0;
};

}  // namespace isthmus::farmem
