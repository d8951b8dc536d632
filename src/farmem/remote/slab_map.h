// SlabMap: where the copies of each slab are, and which nodes are gone. What the channels of a
// store share.
//
// A node that failed once is gone for good: what was written meanwhile, it does not have. It is
// marked before anybody hears that such a write is done, so that whoever reads afterwards does not
// ask it.
//
// Healing: a copy on a node that is gone is replaced by a fresh one, which is being filled: writes
// go to it from then on, reads do not. The healer copies one chunk after another from the copy that
// is left, and again where a program wrote meanwhile: a write notes that it is under way, then its
// beginning, then looks where the copies are; the healer looks in the opposite order. So a write
// that the healer misses has found the fresh copy and is posted after the healer's.
//
// Threading: any thread, but replace() and finish() are for the healer alone. What channels call
// allocates nothing and takes no lock.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "farmem/remote/placement.h"
#include "farmem/store.h"
#include "os/fd.h"

namespace isthmus::farmem {

constexpr std::uint64_t kSlotBytes = 4096;
constexpr std::uint32_t kSlotsOfChunk = 16;  // What healing copies at a time.

struct SlabCopy {
  std::uint64_t address = 0;
  std::uint32_t rkey = 0;
  std::uint32_t node = 0;
};
using SlabCopies = std::array<SlabCopy, kMostReplicas>;

class SlabMap {
 public:
  struct Place {
    explicit Place(const SlabCopy& from) : copy(from) {}
    const SlabCopy copy;
    std::atomic<bool> filling{false};
  };

  SlabMap(std::uint32_t slots_of_slab, std::uint32_t replicas, std::span<const SlabCopies> slabs,
          os::Fd alarm);

  std::uint32_t replicas() const { return replicas_; }
  std::uint32_t slots_of_slab() const { return slots_of_slab_; }
  std::uint32_t slab_count() const { return slab_count_; }
  std::uint32_t slot_count() const { return slab_count_ * slots_of_slab_; }

  const Place& place_of(std::uint32_t slot, std::uint32_t copy) const {
    return *current_[slot / slots_of_slab_ * replicas_ + copy].load();
  }
  std::uint64_t offset_of(std::uint32_t slot) const {
    return slot % slots_of_slab_ * kSlotBytes;
  }

  // As it is now, for a child of fork(): what is being filled here counts as lost there, for
  // whoever fills it knows nothing of the child's writes.
  std::vector<SlabCopies> slabs_for_child() const;

  // Around a write to all copies.
  void begin_write(SlotRun run);
  void end_write(SlotRun run);

  bool is_gone(std::uint32_t node) const { return gone_[node]; }
  // Readable on alarm_fd() for whoever cares for the rest. True: it was not before. `status`: the
  // ibv_wc_status by which that was seen, for the message; 0: seen otherwise.
  bool mark_gone(std::uint32_t node, std::uint32_t status = 0);
  std::uint32_t status_of_gone(std::uint32_t node) const { return gone_status_[node]; }
  // Whether somebody has told of every node that is gone, and that it was told of this one.
  bool all_told() const;
  void note_told(std::uint32_t node) { told_[node] = true; }
  int alarm_fd() const { return alarm_.get(); }

  // For the healer.
  void replace(std::uint32_t slab, std::uint32_t copy, const SlabCopy& fresh);
  void finish(std::uint32_t slab, std::uint32_t copy);
  // A number that changes with each write to the chunk of this slot; nothing: one is under way.
  std::optional<std::uint32_t> writes_before(std::uint32_t slot) const;
  std::uint32_t writes_begun(std::uint32_t slot) const { return chunks_[chunk_of(slot)].begun; }

 private:
  struct Chunk {
    std::atomic<std::uint32_t> begun{0};
    std::atomic<std::uint32_t> under_way{0};
  };
  static std::uint32_t chunk_of(std::uint32_t slot) { return slot / kSlotsOfChunk; }

  const std::uint32_t slots_of_slab_;
  const std::uint32_t replicas_;
  const std::uint32_t slab_count_;
  std::deque<Place> places_;  // All there ever were; channels may still look at old ones.
  std::unique_ptr<std::atomic<Place*>[]> current_;
  std::unique_ptr<Chunk[]> chunks_;  // None with a single copy.
  std::array<std::atomic<bool>, kMostNodes> gone_{};
  std::array<std::atomic<std::uint32_t>, kMostNodes> gone_status_{};  // The first.
  std::array<std::atomic<bool>, kMostNodes> told_{};
  const os::Fd alarm_;
};

}  // namespace isthmus::farmem
