// Making room: which pages go, and how their bytes get to the store.
#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "farmem/pager.h"

namespace isthmus::farmem {
namespace {

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
  while (stats_.pages_local + wanted > most_here_) {
    if (lost_ || !evict_batch()) return false;
  }
  return true;
}

bool Pager::evict_batch() {
  const std::uint32_t count = replacement_->choose(victims_);
  if (count == 0) return false;
  const auto victims = std::span(victims_).first(count);
  std::ranges::sort(victims);
  protect_dirty(victims);
  for (const PageIndex victim : victims) {
    if (table_->state(victim) == PageState::kClean) {
      table_->set_state(victim, PageState::kRemote);
      ++stats_.pages_remote;
      ++stats_.evicted_clean;
    } else {
      stage_dirty(victim);
    }
  }
  write_staged(victims);

  drop_all(victims);
  poll();
  return true;
}

void Pager::drop_all(std::span<const PageIndex> victims) {
  std::size_t ranges = 0;
  for (const PageIndex victim : victims) {
    if (ranges > 0 && dropped_[ranges - 1].end() == page(victim).start) {
      dropped_[ranges - 1].bytes += os::kPageBytes;
    } else {
      dropped_[ranges++] = page(victim);
    }
  }
  drop_.drop(std::span(dropped_).first(ranges));
  stats_.pages_local -= victims.size();
}

// From here until they are dropped, nobody changes them: a writer's fault waits for our lock.
void Pager::protect_dirty(std::span<const PageIndex> victims) {
  for (std::size_t index = 0; index < victims.size();) {
    const PageIndex first = victims[index];
    std::uint32_t run = 0;
    while (index < victims.size() && victims[index] == first + run &&
           table_->state(victims[index]) == PageState::kDirty) {
      ++run;
      ++index;
    }
    if (run == 0) {
      ++index;
      continue;
    }
    userfault_->protect(pages(first, run), os::UffdProtection::kOn);
  }
}

void Pager::stage_dirty(PageIndex index) {
  const std::uint64_t address = page(index).start;
  // SAFETY: a page of our region; it is here, or was given back behind our back and is as new.
  const auto* bytes = reinterpret_cast<const std::byte*>(address);
  if (!os::is_page_present(address) || is_zero(bytes)) {
    table_->set_state(index, PageState::kEmpty);
    ++stats_.evicted_zero;
    return;
  }
  Frames::Run run = frames_->next(1);
  while (run.count == 0) {
    poll();
    run = frames_->next(1);
  }
  take_run(run);
  std::memcpy(frames_->bytes(run.first), bytes, os::kPageBytes);
  frames_->at(run.first) = {
      .page = index, .state = FrameState::kLeaving, .origin = FrameOrigin::kEvicted};
  table_->set_state(index, PageState::kStaged);
  table_->set_frame(index, run.first);
  // Its own place, so that neighbours here are neighbours there.
  if (table_->slot(index) == PageTable::kNoSlot) table_->set_slot(index, index);
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
    const SlotIndex slot = table_->slot(victims[index]);
    std::uint32_t run = 1;
    while (index + run < victims.size()) {
      const PageIndex next = victims[index + run];
      if (table_->state(next) != PageState::kStaged || table_->frame(next) != frame + run ||
          table_->slot(next) != slot + run || (slot + run) % slots_of_slab_ == 0) {
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
