#include "farmem/model_store.h"

#include <array>
#include <cstring>

#include "base/assert.h"
#include "os/address_range.h"

namespace isthmus::farmem {
namespace {

class ModelChannel : public StoreChannel {
 public:
  ModelChannel(const ModelStore& store, std::unique_ptr<os::AnonymousMemory> staging)
      : store_(store), staging_(std::move(staging)) {}

  std::span<std::byte> staging() const override {
    return {staging_->data(), staging_->size()};
  }

  bool staging_may_be_remapped() const override { return store_.options().remappable; }

  void read(SlotRun from, std::byte* to, std::uint64_t ticket) override {
    add({.slots = from, .to = to, .from = nullptr, .ticket = ticket, .polls = 0});
  }
  void write(SlotRun to, const std::byte* from, std::uint64_t ticket) override {
    add({.slots = to, .to = nullptr, .from = from, .ticket = ticket, .polls = 0});
  }

  std::size_t poll(std::span<StoreCompletion> completions) override {
    std::size_t done = 0;
    while (done < completions.size() && count_ > 0) {
      Transfer& next = queue_[first_];
      if (next.polls++ < store_.options().polls_until_done) break;
      if (!store_.lost()) carry_out(next);
      completions[done++] = {next.ticket,
                             store_.lost() ? StoreVerdict::kLost : StoreVerdict::kDone};
      first_ = (first_ + 1) % queue_.size();
      --count_;
    }
    return done;
  }

 private:
  struct Transfer {
    SlotRun slots;
    std::byte* to;
    const std::byte* from;
    std::uint64_t ticket;
    std::uint32_t polls;
  };

  void add(Transfer transfer) {
    const SlotRun slots = transfer.slots;
    ISTHMUS_ASSERT(slots.count > 0 && slots.first + slots.count <= store_.slot_count());
    const std::uint32_t slab = store_.slots_of_slab();
    ISTHMUS_ASSERT(slots.first / slab == (slots.first + slots.count - 1) / slab);
    ISTHMUS_ASSERT(count_ < queue_.size());
    queue_[(first_ + count_++) % queue_.size()] = transfer;
  }

  void carry_out(const Transfer& transfer) {
    const std::size_t bytes = transfer.slots.count * os::kPageBytes;
    std::byte* slot = store_.slot(transfer.slots.first);
    if (transfer.to != nullptr) {
      std::memcpy(transfer.to, slot, bytes);
    } else {
      std::memcpy(slot, transfer.from, bytes);
    }
  }

  const ModelStore& store_;
  std::unique_ptr<os::AnonymousMemory> staging_;
  std::array<Transfer, kMostUnderWay> queue_;
  std::size_t first_ = 0;
  std::size_t count_ = 0;
};

}  // namespace

Result<std::unique_ptr<ModelStore>> ModelStore::create(ModelStoreOptions options) {
  auto memory =
      ISTHMUS_TRY(os::AnonymousMemory::create_shared(options.slot_count * os::kPageBytes));
  return std::unique_ptr<ModelStore>(new ModelStore(options, std::move(memory)));
}

Result<std::unique_ptr<Store>> ModelStore::join_in_child() {
  std::unique_ptr<ModelStore> joined{new ModelStore(options_, memory_)};
  joined->lost_ = lost_;
  return joined;
}

Result<std::unique_ptr<StoreChannel>> ModelStore::open_channel(std::uint32_t frames) {
  auto staging = ISTHMUS_TRY(os::AnonymousMemory::create(frames * os::kPageBytes));
  return std::unique_ptr<StoreChannel>(new ModelChannel(*this, std::move(staging)));
}

}  // namespace isthmus::farmem
