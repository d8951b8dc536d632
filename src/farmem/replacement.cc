#include "farmem/replacement.h"

#include <algorithm>

#include "base/assert.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint32_t kSmallShare = 10;  // A tenth of what is here, as the paper has it.

}  // namespace

Result<std::unique_ptr<Replacement>> Replacement::create(std::uint32_t page_count,
                                                         std::uint32_t capacity) {
  auto memory = ISTHMUS_TRY(os::AnonymousMemory::create(page_count * sizeof(Link)));
  return std::unique_ptr<Replacement>(new Replacement(std::move(memory), capacity));
}

Replacement::Replacement(std::unique_ptr<os::AnonymousMemory> memory, std::uint32_t capacity)
    : memory_(std::move(memory)),
      small_target_(std::max(1u, capacity / kSmallShare)),
      ghosts_(capacity) {}

void Replacement::push(Queue& queue, PageIndex page, Place place) {
  Link& entry = link(page);
  ISTHMUS_ASSERT(entry.place == Place::kOut);
  entry.place = place;
  entry.newer = kNone;
  entry.older = queue.newest;
  if (queue.newest != kNone) link(queue.newest - 1).newer = page + 1;
  queue.newest = page + 1;
  if (queue.oldest == kNone) queue.oldest = page + 1;
  ++queue.count;
}

void Replacement::unlink(PageIndex page) {
  Link& entry = link(page);
  ISTHMUS_ASSERT(entry.place != Place::kOut);
  Queue& queue = queue_of(entry);
  (entry.newer == kNone ? queue.newest : link(entry.newer - 1).older) = entry.older;
  (entry.older == kNone ? queue.oldest : link(entry.older - 1).newer) = entry.newer;
  --queue.count;
  entry.place = Place::kOut;
}

bool Replacement::evicted_lately(const Link& link) const {
  return link.evicted_at != 0 && evictions_ - link.evicted_at < ghosts_;
}

void Replacement::insert(PageIndex page) {
  link(page).used = false;
  if (evicted_lately(link(page))) {
    push(main_, page, Place::kMain);
  } else {
    push(small_, page, Place::kSmall);
  }
}

void Replacement::insert_used(PageIndex page) {
  link(page).used = false;
  push(main_, page, Place::kMain);
}

void Replacement::remove(PageIndex page) {
  unlink(page);
  link(page).evicted_at = 0;
}

void Replacement::note_use(PageIndex page) { link(page).used = true; }

std::uint32_t Replacement::choose(std::span<PageIndex> victims) {
  std::uint32_t chosen = 0;
  // Each page is looked at once or goes round once, as used.
  for (std::uint32_t looks = 2 * count(); looks > 0 && chosen < victims.size(); --looks) {
    const bool from_small = small_.count > small_target_ || main_.count == 0;
    Queue& queue = from_small ? small_ : main_;
    if (queue.count == 0) break;
    const PageIndex page = queue.oldest - 1;
    unlink(page);
    if (link(page).used) {
      link(page).used = false;
      push(main_, page, Place::kMain);
      continue;
    }
    link(page).evicted_at = ++evictions_ == 0 ? ++evictions_ : evictions_;
    victims[chosen++] = page;
  }
  return chosen;
}

}  // namespace isthmus::farmem
