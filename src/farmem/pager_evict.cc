// Making room: which pages go, and how their bytes get to the store.
#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "farmem/pager.h"

namespace isthmus::farmem {
namespace {

// Direct I/O holds pages for milliseconds, and of a few MiB at most.
constexpr std::uint32_t kVainBatches = 64;

bool is_zero(const std::byte* page) {
  const auto* words = reinterpret_cast<const std::uint64_t*>(page);  // SAFETY: page aligned.
  for (std::size_t index = 0; index < os::kPageBytes / 8; index += 8) {
    std::uint64_t any = 0;
    for (std::size_t word = 0; word < 8; ++word) any |= words[index + word];
    if (any != 0) return false;
  }
  return true;
}

}  // namespace

bool Pager::make_room(std::uint32_t wanted) {
  std::uint32_t vain = 0;  // Batches of which the kernel let nothing go.
  crowded_ = false;
  while (stats_.pages_local + wanted > most_here_) {
    if (!join_locked()) return true;  // There is nowhere to evict to.
    const std::uint64_t before = stats_.pages_local;
    if (lost_ || !evict_batch()) return false;
    vain = stats_.pages_local < before ? 0 : vain + 1;
    if (vain > kVainBatches) return false;
  }
  return true;
}

bool Pager::evict_batch() {
  const std::uint32_t count = replacement_->choose(victims_);
  if (count == 0) return false;
  const auto victims = std::span(victims_).first(count);
  std::ranges::sort(victims);
  dropped_count_ = 0;
  looked_for_slots_ = false;
  for (std::size_t index = 0; index < count;) {
    if (table_->state(victims[index]) == PageState::kDirty) {
      index += stage_dirty(victims.subspan(index));
      continue;
    }
    table_->set_state(victims[index], PageState::kRemote);
    ++stats_.pages_remote;
    ++stats_.evicted_clean;
    drop_later(victims[index++]);
  }
  // In this order: a page whose write fails is still in its frame.
  write_staged(victims);
  drop_.drop(std::span(dropped_).first(dropped_count_));
  stats_.pages_local -= count;
  poll();
  return true;
}

void Pager::drop_later(PageIndex index) {
  if (dropped_count_ > 0 && dropped_[dropped_count_ - 1].end() == page(index).start) {
    dropped_[dropped_count_ - 1].bytes += os::kPageBytes;
  } else {
    dropped_[dropped_count_++] = page(index);
  }
}

// A slot that other members of a fork read must not change. When none is free: those of our own
// that are not needed, then those of members that have ended.
bool Pager::has_own_slot(PageIndex index) {
  if (slots_->make_own(index)) return true;
  if (looked_for_slots_) return false;
  looked_for_slots_ = true;
  drop_idle_slots();
  slots_->forget_dead_members();
  return slots_->make_own(index);
}

// A victim that cannot leave now.
void Pager::stays(PageIndex index) {
  replacement_->insert_used(index);
  ++stats_.pages_local;  // It was counted among those that go.
}

// Takes dirty pages that are neighbours, from the front, to leaving frames. Returns how many.
std::uint32_t Pager::stage_dirty(std::span<const PageIndex> victims) {
  const PageIndex first = victims.front();
  if (!has_own_slot(first)) {
    crowded_ = true;
    stays(first);
    return 1;
  }
  std::uint32_t wanted = 1;
  while (wanted < victims.size() && victims[wanted] == first + wanted &&
         table_->state(first + wanted) == PageState::kDirty &&
         slots_->make_own(first + wanted)) {
    ++wanted;
  }
  Frames::Run run = frames_->next_for_leaving(wanted);
  while (run.count == 0) {
    ISTHMUS_ASSERT(under_way_ > 0);
    poll();
    run = frames_->next_for_leaving(wanted);
  }
  // Far ahead, as emptying one costs as much as emptying many.
  if (emptied_ < run.count) {
    const Frames::Run more = frames_->next_for_leaving(kEvictionBatch);
    empty(more);
    emptied_ = more.count;
  }
  if (moves_pages_) {
    const os::UffdProgress moved = move_out(first, run);
    const auto count = static_cast<std::uint32_t>(moved.bytes / os::kPageBytes);
    if (count == 0) return stage_stuck(first, run);
    take_leaving({run.first, count});
    return count;
  }
  if (copy_out(first, run.first)) {
    take_leaving({run.first, 1});
    leaves(first, run.first);
  } else {
    table_->set_state(first, PageState::kEmpty);
    ++stats_.evicted_zero;
  }
  drop_later(first);
  return 1;
}

// Pages that cannot be moved are shared with a child of fork(), or the kernel is writing to them or
// reading from them on behalf of a system call: direct I/O. Copies of the former are our own and
// can be moved; the latter stay, or what arrives would be lost. Those that the program has made
// read-only or executable are of another kind than the frames: they are copied. Returns how many it
// dealt with.
std::uint32_t Pager::stage_stuck(PageIndex first, Frames::Run run) {
  std::uint32_t present = 0;
  while (present < run.count && os::is_page_present(page(first + present).start)) ++present;
  if (present == 0) {
    table_->set_state(first, PageState::kEmpty);  // Given back behind our back.
    return 1;
  }
  os::populate_for_writing(pages(first, present));
  const os::UffdProgress moved = move_out(first, {run.first, present});
  const auto count = static_cast<std::uint32_t>(moved.bytes / os::kPageBytes);
  if (count > 0) {
    take_leaving({run.first, count});
    return count;
  }
  if (moved.verdict == os::UffdVerdict::kInvalid && fill_frame(first, run.first)) {
    take_leaving({run.first, 1});
    leaves(first, run.first);
    drop_later(first);
  } else {
    stays(first);
  }
  return 1;
}

void Pager::take_leaving(Frames::Run run) {
  frames_->take(run);
  emptied_ -= run.count;
}

os::AddressRange Pager::place_of(Frames::Run run) const {
  // SAFETY: an address for the kernel.
  return {reinterpret_cast<std::uint64_t>(frames_->bytes(run.first)),
          std::uint64_t{run.count} * os::kPageBytes};
}

// In one step, the page is in the frame and a touch of it is a fault, which waits for our lock.
os::UffdProgress Pager::move_out(PageIndex first, Frames::Run run) {
  const os::UffdProgress moved = userfault_->move(place_of(run), page(first).start);
  const auto count = static_cast<std::uint32_t>(moved.bytes / os::kPageBytes);
  for (std::uint32_t index = 0; index < count; ++index) {
    if (is_zero(frames_->bytes(run.first + index))) {
      table_->set_state(first + index, PageState::kEmpty);
      ++stats_.evicted_zero;
    } else {
      leaves(first + index, run.first + index);
    }
  }
  return moved;
}

// Copies a page to a frame that has no memory yet. False: the kernel has none.
bool Pager::fill_frame(PageIndex index, std::uint32_t frame) {
  userfault_->protect(page(index), os::UffdProtection::kOn);  // As in copy_out().
  // SAFETY: a page of our region, and present.
  const auto* bytes = reinterpret_cast<const std::byte*>(page(index).start);
  const auto done = userfault_->copy(place_of({frame, 1}), bytes, os::UffdProtection::kOff);
  if (done.verdict == os::UffdVerdict::kDone) return true;
  userfault_->protect(page(index), os::UffdProtection::kOff);
  return false;
}

// Copies a page to a frame. False: it is all zeros, or was given back behind our back.
bool Pager::copy_out(PageIndex index, std::uint32_t frame) {
  // From here until it is dropped, nobody changes it: a writer's fault waits for our lock.
  userfault_->protect(page(index), os::UffdProtection::kOn);
  // SAFETY: a page of our region, and present.
  const auto* bytes = reinterpret_cast<const std::byte*>(page(index).start);
  if (!os::is_page_present(page(index).start) || is_zero(bytes)) return false;
  std::memcpy(frames_->bytes(frame), bytes, os::kPageBytes);
  return true;
}

void Pager::leaves(PageIndex index, std::uint32_t frame) {
  frames_->at(frame) = {
      .page = index, .state = FrameState::kLeaving, .origin = FrameOrigin::kEvicted};
  table_->set_state(index, PageState::kStaged);
  table_->set_frame(index, frame);
  ++stats_.pages_staged;
}

// Neighbours both here and there go in one transfer.
void Pager::write_staged(std::span<const PageIndex> victims) {
  for (std::size_t index = 0; index < victims.size();) {
    if (table_->state(victims[index]) != PageState::kStaged) {
      ++index;
      continue;
    }
    const std::uint32_t frame = table_->frame(victims[index]);
    const SlotIndex slot = slots_->slot(victims[index]);
    std::uint32_t run = 1;
    while (index + run < victims.size()) {
      const PageIndex next = victims[index + run];
      if (table_->state(next) != PageState::kStaged || table_->frame(next) != frame + run ||
          slots_->slot(next) != slot + run || (slot + run) % slots_of_slab_ == 0) {
        break;
      }
      ++run;
    }
    stats_.pages_written += run;
    start(Direction::kOut, {.first = slot, .count = run}, frame);
    index += run;
  }
}

}  // namespace isthmus::farmem
