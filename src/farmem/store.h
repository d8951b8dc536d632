// Store: where pages go that have no room here: numbered slots of 4 KiB in the memory of others.
//
// Primer: a store has slots 0 to slot_count() - 1, all allocated beforehand, so that no fault ever
// waits for an allocation. A channel moves pages between slots and its own staging frames, which
// the network may reach; the program's pages it never touches. Several threads fault at once, each
// on a channel of its own. Transfers on one channel take effect in the order in which they were
// started; between channels only a completion orders.
//
// A transfer ends with a completion, well or badly. kLost says that no copy could be reached, after
// all retries: the page's contents are gone or out of reach, and only the program's end is left.
//
// Threading: a store is for any thread; a channel is for one at a time. Channels are used in signal
// handlers: read(), write() and poll() allocate nothing, take no lock that the program can hold and
// keep errno.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"

namespace isthmus::farmem {

constexpr std::uint32_t kMostPagesOfTransfer = 256;  // 1 MiB.

// Consecutive slots, all of one slab: see Store::slots_of_slab().
struct SlotRun {
  std::uint32_t first;
  std::uint32_t count;  // 1 to kMostPagesOfTransfer.
};

enum class StoreVerdict : std::uint8_t {
  kDone,
  kLost,
};

struct StoreCompletion {
  std::uint64_t ticket;
  StoreVerdict verdict;
};

class StoreChannel {
 public:
  virtual ~StoreChannel() = default;

  // Whole pages, zeroed at first, at the same place for the channel's life.
  virtual std::span<std::byte> staging() const = 0;
  // Whether the pages behind staging may be exchanged for others while nothing is under way there:
  // true of a device in software, false of one that was told physical addresses.
  virtual bool staging_may_be_remapped() const { return false; }

  // Starts a transfer from or to staging frames, which are the channel's until the completion with
  // this ticket. At most kMostUnderWay transfers are under way at a time.
  static constexpr std::uint32_t kMostUnderWay = 256;
  virtual void read(SlotRun from, std::byte* to, std::uint64_t ticket) = 0;
  virtual void write(SlotRun to, const std::byte* from, std::uint64_t ticket) = 0;

  // Completions that are there; 0: none yet. Never waits.
  virtual std::size_t poll(std::span<StoreCompletion> completions) = 0;
};

class Store {
 public:
  static constexpr std::uint64_t kNoHurry = ~std::uint64_t{0};

  virtual ~Store() = default;

  virtual std::uint32_t slot_count() const = 0;
  // Slots n and n + 1 are neighbours in memory unless n + 1 is a multiple of this power of two.
  virtual std::uint32_t slots_of_slab() const = 0;
  // Its staging has room for `frames` pages.
  virtual Result<std::unique_ptr<StoreChannel>> open_channel(std::uint32_t frames) = 0;

  // Before fork(): a child may join, though this process be gone by then. Returns within how many
  // nanoseconds it has to.
  virtual std::uint64_t expect_child() { return kNoHurry; }
  // None will any more: this process ends, and no other has these slots.
  virtual void expect_nobody() {}
  // In a child of fork(): the same slots, over connections of its own, which no other thread
  // touches meanwhile. This store and its channels are the parent's: they are used no more and not
  // destroyed, but what they have in memory stays in use.
  virtual Result<std::unique_ptr<Store>> join_in_child() = 0;
};

}  // namespace isthmus::farmem
