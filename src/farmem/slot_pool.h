// SlotPool: which slot of the store each page has, and who else has it.
//
// Primer: a program and its children after fork() are a family, each process of it a member. What
// was in the store at fork is there once, for both: its slots count two references, and nobody
// writes to them any more. A page whose slot is shared, and that leaves with other contents, takes
// a free slot. The counts and every member's slots are in memory that all members share:
//
//     references   a count for each slot
//     members      a place for each: its state, its writes under way, the slots of its pages
//
// That a member is gone shows by its lock (os/byte_lock.h) on the byte of its place, which ends
// with the process, and with exec. Whoever looks then drops the references that it held. A slot to
// which it was writing stays taken: what the network still carries may arrive there later.
//
// Invariants: a slot counts at least as many references as pages of living members have it. In
// every change the count goes up first and down last, so a member that ends in the middle leaves a
// slot taken, never one free that is in use.
//
// Threading: one thread at a time in each process, and all processes of the family at once. Nothing
// but create() and the calls around fork() allocates.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.h"
#include "farmem/page_table.h"
#include "farmem/store.h"
#include "os/anonymous_memory.h"
#include "os/fd.h"

namespace isthmus::farmem {

using SlotIndex = std::uint32_t;

constexpr std::uint32_t kMostMembers = 1024;
constexpr std::uint32_t kMostWriters = 256;  // Writes of a member under way.

class SlotPool {
 public:
  static constexpr SlotIndex kNoSlot = ~SlotIndex{0};

  struct Options {
    std::uint32_t page_count = 0;
    std::uint32_t slot_count = 0;  // At least page_count.
    std::uint32_t most_members = kMostMembers;
  };
  // With this process as its only member.
  static Result<std::unique_ptr<SlotPool>> create(Options options);

  // Stored as slot + 1, so that untouched memory says kNoSlot.
  SlotIndex slot(PageIndex page) const {
    return is_member() ? slots_of(place_)[page] - 1 : kNoSlot;
  }
  // Other members have it too.
  bool is_shared(SlotIndex slot) const {
    // Acquire: pairs with drop(), after which the other member reads it no more.
    return references()[slot].load(std::memory_order_acquire) != 1;
  }
  bool has_shared(PageIndex page) const {
    return slot(page) != kNoSlot && is_shared(slot(page));
  }

  // Afterwards the page has a slot of its own: the one that it has, or a free one, whose contents
  // are not the page's. False: none is free.
  [[nodiscard]] bool make_own(PageIndex page);
  // The page needs its slot no more. Nothing is under way there.
  void drop(PageIndex page);

  // Around a write to slots of our own; `writer` is below kMostWriters and not in use.
  void begin_write(std::uint32_t writer, SlotRun run);
  void end_write(std::uint32_t writer);

  // Around fork(), with no write under way. The child begins with all slots of this member; if
  // there is no place for another member, it is none.
  void before_fork();
  void after_fork_in_parent();
  void after_fork_in_child();
  bool is_member() const { return place_ != kNoPlace; }

  // Drops what members had that are gone. Returns how many those were.
  std::uint32_t forget_dead_members();

  // Others that are alive, as far as forget_dead_members() has seen.
  bool is_alone() const;

  // For tests.
  std::uint32_t references_of(SlotIndex slot) const { return references()[slot]; }

 private:
  static constexpr std::uint32_t kNoPlace = ~std::uint32_t{0};

  enum class Place : std::uint8_t {
    kFree,
    kMember,  // Alive as long as the byte of this number is locked.
    kUnseen,  // Whether it is alive cannot be seen, so it counts as alive.
  };
  struct Sizes {
    std::size_t references, places, writers, slots, all;
  };

  SlotPool(Options options, Sizes offsets, std::unique_ptr<os::AnonymousMemory> memory,
           os::Fd lock);
  static Sizes offsets_for(const Options& options);

  // SAFETY: the memory is zeroed, page aligned, and sized for these arrays in create().
  std::atomic<std::uint16_t>* references() const {
    return reinterpret_cast<std::atomic<std::uint16_t>*>(memory_->data() + offsets_.references);
  }
  std::atomic<Place>& place(std::uint32_t index) const {
    return reinterpret_cast<std::atomic<Place>*>(memory_->data() + offsets_.places)[index];
  }
  std::atomic<std::uint64_t>* writers_of(std::uint32_t place) const {
    return reinterpret_cast<std::atomic<std::uint64_t>*>(memory_->data() + offsets_.writers) +
           std::size_t{place} * kMostWriters;
  }
  std::atomic<std::uint32_t>* slots_of(std::uint32_t place) const {
    return reinterpret_cast<std::atomic<std::uint32_t>*>(memory_->data() + offsets_.slots) +
           std::size_t{place} * slots_stride();
  }
  std::size_t slots_stride() const;

  void set_slot(std::uint32_t place, PageIndex page, SlotIndex slot);
  bool take(SlotIndex slot);
  void release(SlotIndex slot);
  SlotIndex find(PageIndex page);
  std::optional<std::uint32_t> take_place(const os::Fd& lock);
  void forget_member(std::uint32_t dead);

  const Options options_;
  const Sizes offsets_;
  std::unique_ptr<os::AnonymousMemory> memory_;
  os::Fd lock_;               // Ours: the byte of our place.
  std::uint32_t place_ = 0;
  SlotIndex next_ = 0;        // Where to look for a free slot.

  // Between before_fork() and what follows it.
  os::Fd childs_lock_;
  std::uint32_t childs_place_ = kNoPlace;
};

}  // namespace isthmus::farmem
