#include "farmem/remote/healer.h"

#include "base/log.h"
#include "os/process.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint32_t kChunksOfStep = 64;  // 4 MiB, some milliseconds.

}  // namespace

Healer::Verdict Healer::step() {
  if (map_.replicas() < 2) return Verdict::kNothing;
  bool no_room = false;
  if (!job_ && !begin_job(no_room)) {
    channel_.reset();
    if (healed_ > 0) ISTHMUS_LOG(kWarning, "%u slabs have their second copy again", healed_);
    healed_ = 0;
    return no_room ? Verdict::kNoRoom : Verdict::kNothing;
  }
  const std::uint32_t end = (job_->slab + 1) * map_.slots_of_slab();
  for (std::uint32_t i = 0; i < kChunksOfStep && job_->next_slot < end; ++i) {
    if (!fill_chunk()) {
      // One of the nodes is gone; the copy stays unreadable, and is replaced in its turn.
      job_.reset();
      return Verdict::kMore;
    }
  }
  if (job_->next_slot < end) return Verdict::kMore;
  map_.finish(job_->slab, job_->copy);
  ++healed_;
  job_.reset();
  return Verdict::kMore;
}

bool Healer::begin_job(bool& no_room) {
  for (std::uint32_t slab = 0; slab < map_.slab_count(); ++slab) {
    const std::uint32_t slot = slab * map_.slots_of_slab();
    for (std::uint32_t copy = 0; copy < map_.replicas(); ++copy) {
      const SlabMap::Place& lost = map_.place_of(slot, copy);
      const SlabMap::Place& left = map_.place_of(slot, 1 - copy);
      const bool other_is_good = !map_.is_gone(left.copy.node) && !left.filling;
      if (!map_.is_gone(lost.copy.node) || !other_is_good) continue;
      if (!channel_) {
        auto opened = needs_.open_channel();
        if (!opened) {
          ISTHMUS_LOG(kWarning, "no channel to heal over: %s", opened.error().message.c_str());
          no_room = true;
          return false;
        }
        channel_ = std::move(*opened);
      }
      const auto fresh = needs_.reserve(left.copy.node);
      if (!fresh) {
        no_room = true;
        return false;
      }
      map_.replace(slab, copy, *fresh);
      job_ = Job{.slab = slab, .copy = copy, .next_slot = slot};
      return true;
    }
  }
  return false;
}

// False: what it reads or writes is out of reach.
bool Healer::fill_chunk() {
  const SlotRun run{.first = job_->next_slot, .count = kSlotsOfChunk};
  const auto before = map_.writes_before(run.first);
  if (!before) {
    os::yield_processor();
    return true;  // Again in a moment.
  }
  std::byte* const frames = channel_->staging().data();
  if (!transfer([&] { channel_->read(run, frames, 0); })) return false;
  if (!transfer([&] { channel_->write_copy(run, job_->copy, frames, 0); })) return false;
  if (map_.writes_begun(run.first) == *before) job_->next_slot += kSlotsOfChunk;
  return true;
}

bool Healer::transfer(const std::function<void()>& start) {
  start();
  StoreCompletion ended{};
  while (channel_->poll({&ended, 1}) == 0) os::yield_processor();
  return ended.verdict == StoreVerdict::kDone;
}

}  // namespace isthmus::farmem
