// Pager: a region of address space larger than the memory that it may take here.
//
// Primer: the region is registered with userfaultfd. A touch of a page that is not here is a fault,
// which serve() resolves: a page never touched before is zeros and costs no network; any other
// comes from its slot in the store, by way of a staging frame, with what the prefetch policy adds.
// When more pages are here than local_bytes allows, the coldest are evicted in batches: clean ones
// are dropped; dirty ones go to staging frames, by remapping where kernel and device allow it, and
// are written to their slots from there. A page is clean while write protected: its first write is
// a fault.
//
// After fork() the child is served like its parent, over a channel of its own, which it opens when
// it first needs the store: whoever calls exec() soon never does. Until then what was in the
// parent's staging frames is found there. Which slots are whose: slot_pool.h.
//
// Invariants: pages here and staging frames together never exceed local_bytes. A page is in exactly
// one PageState; its bytes are those last seen by the program in every state. Nothing is read from
// a slot before the write to it has completed. serve() returns with the page here, unless another
// thread evicted it again; then the access faults again.
//
// Threading: any thread. serve() may run in the faulting thread's signal handler: it allocates
// nothing and takes only the pager's lock, which is held with all signals blocked, and under which
// no far page is touched unless it is here. All other calls block signals by themselves. The lock
// is let go between polls of the network, so that other threads' faults overlap.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>

#include "base/result.h"
#include "farmem/fault_delivery.h"
#include "farmem/frames.h"
#include "farmem/page_table.h"
#include "farmem/prefetch.h"
#include "farmem/replacement.h"
#include "farmem/slot_pool.h"
#include "farmem/stats.h"
#include "farmem/store.h"
#include "farmem/write_forecast.h"
#include "os/address_range.h"
#include "os/anonymous_memory.h"
#include "os/page_drop.h"
#include "os/signal_block.h"
#include "os/userfault.h"

namespace isthmus::farmem {

constexpr std::uint32_t kStagingFrames = 256;
constexpr std::uint32_t kEvictionBatch = 64;  // Past it, dropping pages is cheap enough anyway.
constexpr std::uint64_t kLeastLocalBytes = 4u << 20;
static_assert(kLeastLocalBytes >= 2 * kStagingFrames * os::kPageBytes,
              "staging must leave room for pages");
static_assert(kStagingFrames / 2 >= 2 * kEvictionBatch && kStagingFrames / 2 > kMostWindow,
              "a batch must fit beside the one before it, and a window into what arrives");

struct PagerOptions {
  std::uint64_t region_bytes = 0;  // Whole pages; at most the store's slots.
  std::uint64_t local_bytes = 0;   // At least kLeastLocalBytes, staging included.
  FaultDelivery delivery = FaultDelivery::kSignal;
  PrefetchPolicy prefetch = PrefetchPolicy::kAdaptive;
};

enum class ServeVerdict : std::uint8_t {
  kServed,   // Try the access again.
  kForeign,  // Not an address of the region.
  kLost,     // The page's contents cannot be reached any more.
  kFull,     // Everything here is pinned, or the kernel has no memory.
  kCrowded,  // No slot is free for a page that differs from what other members of a fork have.
  kOrphan,   // The page is in the store, which this child of fork() could not join.
};

class Pager {
 public:
  // kInvalid names the option; kDenied: no userfaultfd, with what would open a way. The store
  // outlives the pager.
  static Result<std::unique_ptr<Pager>> create(Store& store, PagerOptions options);
  ~Pager();
  Pager(const Pager&) = delete;
  Pager& operator=(const Pager&) = delete;

  os::AddressRange region() const { return region_; }
  const os::Userfault& userfault() const { return *userfault_; }
  FaultDelivery delivery() const { return options_.delivery; }
  bool contains(std::uint64_t address) const {
    return address - region_.start < region_.bytes;
  }

  // A fault at this address. The caller has all signals blocked.
  ServeVerdict serve(std::uint64_t address, os::UffdAccess access);

  // Ranges are whole pages of the region. What is in them is gone: the next touch reads zeros, and
  // nothing of them is written to the store.
  void discard(os::AddressRange range);
  // Brings pages here and keeps them until unpin(); counts nest, up to 255 a page. kNoMemory: too
  // little room would be left for the rest. kIo: lost.
  Result<void> pin(os::AddressRange range, os::UffdAccess access);
  void unpin(os::AddressRange range);
  // Soon to be used: starts fetching as much as fits into half of the staging frames.
  void prefetch(os::AddressRange range);

  // Around fork(): between them the pager stands still and nothing is under way.
  void before_fork();
  void after_fork_in_parent();
  // Before the child touches any far page, and after its verbs libraries have let go of what is the
  // parent's. Whoever delivers faults starts anew in the child.
  Result<void> after_fork_in_child();
  // In a child, if it has not joined the store yet: it does so now. Not later than join_by_ns() of
  // os::now_ns(), for the store may forget it then; ~0: whenever it likes.
  void join_store();
  std::uint64_t join_by_ns() const { return join_by_ns_; }
  // This process is about to end. Its memory stays what it is; but if it is the last of a family,
  // the store waits for no others.
  void note_end();

  PagerStats stats() const;
  // For whoever looks from another process.
  std::uint64_t stats_address() const { return reinterpret_cast<std::uint64_t>(&stats_); }
  std::uint64_t states_address() const { return table_->states_address(); }
  PageState state_of(std::uint64_t address) const { return table_->state(page_of(address)); }

 private:
  struct Parts;
  Pager(PagerOptions options, Parts parts);
  static Result<std::unique_ptr<os::Userfault>> open_userfault(FaultDelivery delivery);
  Result<void> register_region();
  Result<void> register_leaving_frames();

  using Guard = std::unique_lock<std::mutex>;

  PageIndex page_of(std::uint64_t address) const {
    return static_cast<PageIndex>((address - region_.start) / os::kPageBytes);
  }
  os::AddressRange pages(PageIndex first, std::uint32_t count) const {
    return {region_.start + std::uint64_t{first} * os::kPageBytes,
            std::uint64_t{count} * os::kPageBytes};
  }
  os::AddressRange page(PageIndex index) const { return pages(index, 1); }
  std::uint32_t page_count() const { return table_->page_count(); }

  enum class Direction : std::uint8_t { kIn, kOut };

  // pager_fault.cc
  ServeVerdict serve_locked(Guard& guard, PageIndex page, os::UffdAccess access);
  ServeVerdict first_touch(PageIndex page, os::UffdAccess access);
  ServeVerdict first_write(PageIndex page);
  bool already_here(PageIndex page);
  bool fetch(PageIndex page, bool again);
  std::uint32_t fetch_run(PageIndex page, std::uint32_t count);
  std::uint32_t ahead_after(PageIndex page, std::uint32_t frame, FrameState state) const;
  std::optional<ServeVerdict> install(Guard& guard, PageIndex page, os::UffdAccess access);
  ServeVerdict map_staged(PageIndex first, std::uint32_t frame, std::uint32_t count,
                          os::UffdAccess access);
  void came_from(std::uint32_t frame, PageIndex page, PageState state);
  void came_here(PageIndex page, PageState state);
  ServeVerdict no_room() const;

  // pager_fork.cc
  void drop_idle_slots();
  void protect_clean_pages();
  bool join_locked();
  Result<void> join();
  void leave_parents_frames();

  // pager_evict.cc
  bool make_room(std::uint32_t wanted);
  bool evict_batch();
  std::uint32_t stage_dirty(std::span<const PageIndex> victims);
  os::AddressRange place_of(Frames::Run run) const;
  os::UffdProgress move_out(PageIndex first, Frames::Run run);
  std::uint32_t stage_stuck(PageIndex first, Frames::Run run);
  bool copy_out(PageIndex page, std::uint32_t frame);
  bool fill_frame(PageIndex page, std::uint32_t frame);
  void leaves(PageIndex page, std::uint32_t frame);
  bool has_own_slot(PageIndex page);
  void stays(PageIndex page);
  void take_leaving(Frames::Run run);
  void write_staged(std::span<const PageIndex> victims);
  void drop_later(PageIndex page);

  // pager_transfer.cc
  void empty(Frames::Run run);
  void start(Direction direction, SlotRun slots, std::uint32_t frame);
  void finish(StoreCompletion completion);
  void poll();
  void wait(Guard& guard);

  PagerOptions options_;
  os::AddressRange region_;
  std::unique_ptr<os::AnonymousMemory> memory_;  // The region.
  std::unique_ptr<os::Userfault> userfault_;
  Store* store_;
  std::unique_ptr<Store> joined_;          // In a child of fork(): then it is store_.
  std::unique_ptr<StoreChannel> channel_;  // None in a child of fork() that has not joined.
  std::unique_ptr<PageTable> table_;
  std::unique_ptr<SlotPool> slots_;
  std::unique_ptr<Frames> frames_;
  std::unique_ptr<Replacement> replacement_;
  std::unique_ptr<os::AnonymousMemory> zeros_;
  os::PageDrop drop_;
  std::uint32_t slots_of_slab_;
  std::uint32_t most_here_;  // Pages.
  bool moves_pages_;         // To leaving frames, instead of copying them.
  bool may_join_ = false;    // In a child: it has not tried.
  std::atomic<std::uint64_t> join_by_ns_{Store::kNoHurry};

  mutable std::mutex lock_;
  Prefetcher prefetcher_;
  WriteForecast forecast_;
  std::uint32_t proof_turn_ = 0;
  PagerStats stats_;
  std::uint32_t under_way_ = 0;   // Transfers.
  std::uint32_t idle_polls_ = 0;
  bool lost_ = false;             // A page could not be written anywhere.
  bool crowded_ = false;          // A page found no slot since make_room() began.
  bool looked_for_slots_ = false;  // Since this batch began.
  std::optional<os::SignalBlock> fork_block_;

  // Of evict_batch(), which may run on a small stack.
  std::array<PageIndex, kEvictionBatch> victims_;
  std::array<os::AddressRange, kEvictionBatch> dropped_;
  std::uint32_t dropped_count_ = 0;
  std::uint32_t emptied_ = 0;  // Leaving frames, from the next one on.
};

}  // namespace isthmus::farmem
