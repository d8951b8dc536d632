// Serving one fault: what to do in each state of the page.
#include <algorithm>

#include "base/assert.h"
#include "farmem/pager.h"
#include "os/clock.h"

namespace isthmus::farmem {
namespace {

// How long pages fetched ahead may keep the page that is needed waiting, after its arrival: a
// fault that finds one of them in its frame costs about 3 µs, so waiting longer loses.
constexpr std::uint64_t kPatienceNs = 5'000;

constexpr std::uint32_t kInstallsOfProof = 16;

os::UffdProtection protection_for(os::UffdAccess access) {
  return access == os::UffdAccess::kWrite ? os::UffdProtection::kOff : os::UffdProtection::kOn;
}

}  // namespace

ServeVerdict Pager::serve_locked(Guard& guard, PageIndex page, os::UffdAccess access) {
  bool asked = false;  // This fault has started a read.
  for (;;) {
    switch (table_->state(page)) {
      case PageState::kEmpty: return first_touch(page, access);
      case PageState::kDirty:
        if (already_here(page)) return ServeVerdict::kServed;
        continue;
      case PageState::kClean:
        if (access == os::UffdAccess::kWrite) {
          return first_write(page);
        }
        if (already_here(page)) return ServeVerdict::kServed;
        continue;
      case PageState::kStaged: {
        const Frame& frame = frames_->at(table_->frame(page));
        if (frame.state == FrameState::kArriving) {
          wait(guard);
          continue;
        }
        if (!asked) ++stats_.faults_staged;
        if (const auto verdict = install(guard, page, access)) return *verdict;
        continue;
      }
      case PageState::kRemote:
        if (!join_locked()) return ServeVerdict::kOrphan;
        if (!asked) ++stats_.faults_remote;
        if (!fetch(page, asked)) {
          wait(guard);
          continue;
        }
        asked = true;
        continue;
      case PageState::kLost: return ServeVerdict::kLost;
    }
  }
}

// The map says it is here. Mostly another thread was quicker; but the program may have given the
// page back by a system call that nobody told us of, and then it is as good as new.
bool Pager::already_here(PageIndex index) {
  if (os::is_page_present(page(index).start)) {
    ++stats_.faults_stale;
    if (delivery() == FaultDelivery::kMessage) userfault_->wake(page(index));
    return true;
  }
  replacement_->remove(index);
  table_->set_pins(index, 0);
  table_->set_state(index, PageState::kEmpty);
  --stats_.pages_local;
  return false;
}

ServeVerdict Pager::first_touch(PageIndex index, os::UffdAccess access) {
  ++stats_.faults_first;
  const Window window = prefetcher_.on_fault(index);
  stats_.prefetch_used += window.used;
  std::uint32_t count = 1;
  const std::uint32_t most = window.stride == 1 ? window.count + 1 : 1;
  while (count < most && index + count < page_count() &&
         table_->state(index + count) == PageState::kEmpty) {
    ++count;
  }
  if (!make_room(count) && !make_room(count = 1)) return no_room();
  // A write would fault again at once on the shared page of zeros, so it gets one of its own. The
  // kernel replaces the shared page silently, so all of them count as dirty; one that is still
  // zero when it is evicted becomes empty again.
  std::uint32_t zeroed = 0;
  if (access == os::UffdAccess::kWrite) {
    const auto done =
        userfault_->copy(page(index), zeros_->data(), os::UffdProtection::kOff);
    if (done.verdict == os::UffdVerdict::kNoMemory) return ServeVerdict::kFull;
    came_here(index, PageState::kDirty);
    zeroed = 1;
  }
  if (zeroed == count) return ServeVerdict::kServed;
  const auto done = userfault_->zero(pages(index + zeroed, count - zeroed));
  const auto more = static_cast<std::uint32_t>(done.bytes / os::kPageBytes);
  for (std::uint32_t next = 0; next < more; ++next) {
    came_here(index + zeroed + next, PageState::kDirty);
  }
  if (done.verdict == os::UffdVerdict::kNoMemory && zeroed + more == 0) return ServeVerdict::kFull;
  // A page that is there unexpectedly: taken as here, the next time round.
  if (done.verdict == os::UffdVerdict::kExists) came_here(index + zeroed + more, PageState::kDirty);
  return ServeVerdict::kServed;
}

ServeVerdict Pager::first_write(PageIndex index) {
  table_->set_expects_write(index, true);
  forecast_.note_write();
  userfault_->protect(page(index), os::UffdProtection::kOff);
  ++stats_.faults_write;
  replacement_->note_use(index);
  table_->set_state(index, PageState::kDirty);
  return ServeVerdict::kServed;
}

void Pager::came_here(PageIndex page, PageState state) {
  table_->set_state(page, state);
  replacement_->insert(page);
  ++stats_.pages_local;
}

ServeVerdict Pager::no_room() const {
  if (lost_) return ServeVerdict::kLost;
  return crowded_ ? ServeVerdict::kCrowded : ServeVerdict::kFull;
}

// How many pages after this one, fetched ahead, are in the frames after its own, in this state.
std::uint32_t Pager::ahead_after(PageIndex page, std::uint32_t frame, FrameState state) const {
  std::uint32_t count = 0;
  while (page + count + 1 < page_count() && frame + count + 1 < frames_->count()) {
    const Frame& next = frames_->at(frame + count + 1);
    const bool follows = next.page == page + count + 1 && next.origin == FrameOrigin::kAhead;
    if (!follows || next.state != state) break;
    ++count;
  }
  return count;
}

// Maps a page from its frame, with what was fetched ahead and is there in time. Nothing: it is
// not in that frame any more, look again.
std::optional<ServeVerdict> Pager::install(Guard& guard, PageIndex page, os::UffdAccess access) {
  const std::uint32_t frame = table_->frame(page);
  const auto still_there = [&] {
    return table_->state(page) == PageState::kStaged && table_->frame(page) == frame;
  };
  const auto whole = [&] { return 1 + ahead_after(page, frame, FrameState::kHolding); };
  const auto late = [&] {
    const std::uint32_t count = whole();
    return ahead_after(page + count - 1, frame + count - 1, FrameState::kArriving);
  };
  if (late() > 0) {
    const std::uint64_t deadline_ns = os::now_ns() + kPatienceNs;
    while (late() > 0 && os::now_ns() < deadline_ns) {
      wait(guard);
      if (!still_there()) return std::nullopt;
    }
    stats_.prefetch_late += late();
  }
  std::uint32_t count = whole();
  if (!make_room(count) && !make_room(count = 1)) return no_room();
  // What was evicted may have needed the frames of what is to come.
  if (!still_there()) return std::nullopt;
  count = std::min(count, whole());
  if (access == os::UffdAccess::kWrite) return map_staged(page, frame, count, access);
  // The first write to a page installed for reading is another fault, 2.5 µs; a page installed for
  // writing is written to the store, perhaps for nothing. What was written last time will be again;
  // now and then it has to prove it.
  const bool most = forecast_.most_are_written();
  const bool expected = most || table_->expects_write(page);
  std::uint32_t alike = 1;
  while (alike < count && (most || table_->expects_write(page + alike) == expected)) ++alike;
  if (expected && ++proof_turn_ % kInstallsOfProof != 0) access = os::UffdAccess::kWrite;
  if (access == os::UffdAccess::kRead) {
    forecast_.note_protected(alike);
    for (std::uint32_t next = 0; next < alike; ++next) {
      table_->set_expects_write(page + next, false);
    }
  }
  return map_staged(page, frame, alike, access);
}

ServeVerdict Pager::map_staged(PageIndex first, std::uint32_t frame, std::uint32_t count,
                               os::UffdAccess access) {
  const PageState state =
      access == os::UffdAccess::kWrite ? PageState::kDirty : PageState::kClean;
  std::uint32_t mapped = 0;
  while (mapped < count) {
    const auto done = userfault_->copy(pages(first + mapped, count - mapped),
                                       frames_->bytes(frame + mapped), protection_for(access));
    const auto pages_done = static_cast<std::uint32_t>(done.bytes / os::kPageBytes);
    for (std::uint32_t next = 0; next < pages_done; ++next) {
      came_from(frame + mapped + next, first + mapped + next, state);
    }
    mapped += pages_done;
    if (done.verdict == os::UffdVerdict::kDone || mapped == count) break;
    if (done.verdict == os::UffdVerdict::kExists) {
      // There unexpectedly: the program's doing, and newer than what the frame has.
      came_from(frame + mapped, first + mapped, PageState::kDirty);
      ++mapped;
      continue;
    }
    if (done.verdict == os::UffdVerdict::kRetry) continue;
    if (mapped > 0) break;
    return done.verdict == os::UffdVerdict::kNoMemory ? ServeVerdict::kFull
                                                      : ServeVerdict::kForeign;
  }
  return ServeVerdict::kServed;
}

// It is mapped now; its frame is free, or will be when the write out of it is done.
void Pager::came_from(std::uint32_t frame_index, PageIndex page, PageState state) {
  Frame& frame = frames_->at(frame_index);
  ISTHMUS_ASSERT(frame.page == page);
  frame.page = Frame::kNobody;
  if (frame.state == FrameState::kHolding) frame.state = FrameState::kFree;
  --stats_.pages_staged;
  ++stats_.pages_local;
  table_->set_state(page, state);
  if (frame.origin == FrameOrigin::kEvicted) {
    replacement_->insert_used(page);
  } else {
    replacement_->insert(page);
  }
}

// Starts to read a page and what the policy adds. False: no frame is free yet.
bool Pager::fetch(PageIndex page, bool again) {
  const Window window = again ? Window{} : prefetcher_.on_fault(page);
  stats_.prefetch_used += window.used;
  const std::uint32_t ahead = window.stride == 1 ? window.count : 0;
  const std::uint32_t started = fetch_run(page, 1 + ahead);
  if (started == 0) return false;
  frames_->at(table_->frame(page)).origin = FrameOrigin::kAsked;
  stats_.prefetched += started - 1;
  if (window.stride == 1) return true;
  std::int64_t next = page;
  for (std::uint32_t step = 0; step < window.count; ++step) {
    next += window.stride;
    if (next < 0 || next >= page_count()) break;
    const auto candidate = static_cast<PageIndex>(next);
    if (table_->state(candidate) != PageState::kRemote) continue;
    if (fetch_run(candidate, 1) == 0) break;
    ++stats_.prefetched;
  }
  return true;
}

// Reads up to `count` pages from this one on, as long as they are remote and neighbours in the
// store. Returns how many; 0: no frame is free.
std::uint32_t Pager::fetch_run(PageIndex page, std::uint32_t count) {
  const SlotIndex slot = slots_->slot(page);
  const std::uint32_t to_slab_end = slots_of_slab_ - slot % slots_of_slab_;
  const std::uint32_t most = std::min({count, to_slab_end, page_count() - page});
  std::uint32_t wanted = 1;
  while (wanted < most && table_->state(page + wanted) == PageState::kRemote &&
         slots_->slot(page + wanted) == slot + wanted) {
    ++wanted;
  }
  const Frames::Run run = frames_->next_for_arrival(wanted);
  if (run.count == 0) return 0;
  empty(run);
  frames_->take(run);
  for (std::uint32_t index = 0; index < run.count; ++index) {
    Frame& frame = frames_->at(run.first + index);
    frame = {.page = page + index, .state = FrameState::kArriving, .origin = FrameOrigin::kAhead};
    table_->set_state(page + index, PageState::kStaged);
    table_->set_frame(page + index, run.first + index);
  }
  stats_.pages_remote -= run.count;
  stats_.pages_staged += run.count;
  stats_.pages_read += run.count;
  start(Direction::kIn, {.first = slot, .count = run.count}, run.first);
  poll();  // On the same host it is here already.
  return run.count;
}

}  // namespace isthmus::farmem
