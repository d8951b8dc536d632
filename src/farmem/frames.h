// Frames: the staging frames of a channel, through which every page comes and goes.
//
// Frames are handed out in two rings, so that the oldest content goes first. One whose content is
// whole keeps it until the ring comes round: a page that is wanted again meanwhile costs no
// network. That is the soft tail of the replacement policy.
//
// Threading: under the pager's lock.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "farmem/page_table.h"
#include "farmem/store.h"
#include "os/address_range.h"
#include "os/anonymous_memory.h"

namespace isthmus::farmem {

enum class FrameState : std::uint8_t {
  kFree,
  kArriving,  // A read is under way into it.
  kLeaving,   // A write is under way out of it; what it holds is whole.
  kHolding,   // Whole, and nothing is under way.
};

enum class FrameOrigin : std::uint8_t {
  kAsked,    // A fault needed it.
  kAhead,    // Fetched ahead; nobody has asked for it yet.
  kEvicted,  // On its way out, or out.
};

struct Frame {
  static constexpr PageIndex kNobody = ~PageIndex{0};

  PageIndex page = kNobody;  // Whose content this is, while the page is kStaged.
  FrameState state = FrameState::kFree;
  FrameOrigin origin = FrameOrigin::kAsked;
};

class Frames {
 public:
  // The frames are numbered through all of the staging memory; the first half is for pages that
  // arrive, the second for those that leave.
  static Result<std::unique_ptr<Frames>> create(std::span<std::byte> staging);

  std::uint32_t count() const { return count_; }
  Frame& at(std::uint32_t index) { return frames()[index]; }
  std::byte* bytes(std::uint32_t index) const {
    return staging_.data() + std::size_t{index} * os::kPageBytes;
  }
  std::span<std::byte> leaving_bytes() const { return staging_.subspan(staging_.size() / 2); }

  struct Run {
    std::uint32_t first;
    std::uint32_t count;
  };
  // The next frames in a row that have nothing under way: `count`, or fewer at the end of the ring
  // or before one that has. None: wait for that one.
  Run next_for_arrival(std::uint32_t count) { return next(arriving_, count); }
  Run next_for_leaving(std::uint32_t count) { return next(leaving_, count); }
  // Moves the ring past a run that next_...() gave. Whoever is in the frames still is let go by
  // the caller.
  void take(Run run);

 private:
  struct Ring {
    std::uint32_t first;
    std::uint32_t count;
    std::uint32_t cursor;  // From `first`.
  };

  Frames(std::span<std::byte> staging, std::unique_ptr<os::AnonymousMemory> memory)
      : staging_(staging),
        memory_(std::move(memory)),
        count_(static_cast<std::uint32_t>(staging.size() / os::kPageBytes)),
        arriving_{0, count_ / 2, 0},
        leaving_{count_ / 2, count_ - count_ / 2, 0} {}

  Run next(const Ring& ring, std::uint32_t count);
  // SAFETY: sized and initialised in create().
  Frame* frames() const { return reinterpret_cast<Frame*>(memory_->data()); }

  std::span<std::byte> staging_;
  std::unique_ptr<os::AnonymousMemory> memory_;
  std::uint32_t count_;
  Ring arriving_;
  Ring leaving_;
};

}  // namespace isthmus::farmem
