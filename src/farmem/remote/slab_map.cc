#include "farmem/remote/slab_map.h"

#include "os/event_fd.h"

namespace isthmus::farmem {

SlabMap::SlabMap(std::uint32_t slots_of_slab, std::uint32_t replicas,
                 std::span<const SlabCopies> slabs, os::Fd alarm)
    : slots_of_slab_(slots_of_slab),
      replicas_(replicas),
      slab_count_(static_cast<std::uint32_t>(slabs.size())),
      current_(new std::atomic<Place*>[slabs.size() * replicas]),
      alarm_(std::move(alarm)) {
  for (std::size_t slab = 0; slab < slabs.size(); ++slab) {
    for (std::uint32_t copy = 0; copy < replicas; ++copy) {
      current_[slab * replicas + copy] = &places_.emplace_back(slabs[slab][copy]);
    }
  }
  if (replicas > 1) chunks_.reset(new Chunk[chunk_of(slot_count()) + 1]);
}

std::vector<SlabCopies> SlabMap::slabs_for_child() const {
  std::uint32_t gone = 0;
  while (gone + 1 < kMostNodes && !gone_[gone]) ++gone;
  std::vector<SlabCopies> slabs(slab_count_);
  for (std::uint32_t slab = 0; slab < slab_count_; ++slab) {
    for (std::uint32_t copy = 0; copy < replicas_; ++copy) {
      const Place& place = *current_[slab * replicas_ + copy].load();
      slabs[slab][copy] = place.copy;
      // There is a node that is gone, or nothing would be filled.
      if (place.filling) slabs[slab][copy].node = gone;
    }
  }
  return slabs;
}

void SlabMap::begin_write(SlotRun run) {
  if (!chunks_) return;
  for (std::uint32_t c = chunk_of(run.first); c <= chunk_of(run.first + run.count - 1); ++c) {
    ++chunks_[c].under_way;
    ++chunks_[c].begun;
  }
}

void SlabMap::end_write(SlotRun run) {
  if (!chunks_) return;
  for (std::uint32_t c = chunk_of(run.first); c <= chunk_of(run.first + run.count - 1); ++c) {
    --chunks_[c].under_way;
  }
}

bool SlabMap::mark_gone(std::uint32_t node, std::uint32_t status) {
  std::uint32_t none = 0;
  gone_status_[node].compare_exchange_strong(none, status);
  if (gone_[node].exchange(true)) return false;
  os::signal(alarm_.get());
  return true;
}

bool SlabMap::all_told() const {
  for (std::uint32_t node = 0; node < kMostNodes; ++node) {
    if (gone_[node] && !told_[node]) return false;
  }
  return true;
}

void SlabMap::replace(std::uint32_t slab, std::uint32_t copy, const SlabCopy& fresh) {
  Place& place = places_.emplace_back(fresh);
  place.filling = true;
  current_[slab * replicas_ + copy] = &place;
}

void SlabMap::finish(std::uint32_t slab, std::uint32_t copy) {
  current_[slab * replicas_ + copy].load()->filling = false;
}

std::optional<std::uint32_t> SlabMap::writes_before(std::uint32_t slot) const {
  const Chunk& chunk = chunks_[chunk_of(slot)];
  const std::uint32_t begun = chunk.begun;
  if (chunk.under_way != 0) return std::nullopt;
  return begun;
}

}  // namespace isthmus::farmem
