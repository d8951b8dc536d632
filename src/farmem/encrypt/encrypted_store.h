// EncryptedStore: a store whose nodes see ciphertext only.
//
// It stands before another store. Each page is sealed on its way out, from its staging frame into a
// frame of the other store's channel, and opened on its way in. A page that does not open is lost,
// like one whose node is gone. Key and seals, 24 bytes a page, never leave this process.
//
// Threading: as Store. Channels share the seals: two of them never move one slot at a time.
#pragma once

#include <atomic>
#include <memory>

#include "farmem/encrypt/page_cipher.h"
#include "farmem/store.h"
#include "os/anonymous_memory.h"

namespace isthmus::farmem {

class EncryptedStore final : public Store {
 public:
  // With a new random key.
  static Result<std::unique_ptr<EncryptedStore>> create(std::unique_ptr<Store> below);

  std::uint32_t slot_count() const override { return below_->slot_count(); }
  std::uint32_t slots_of_slab() const override { return below_->slots_of_slab(); }
  Result<std::unique_ptr<StoreChannel>> open_channel(std::uint32_t frames) override;

  // For the channels.
  PageSeal& seal_of(std::uint32_t slot) { return seals()[slot]; }
  std::uint64_t next_number() { return numbers_.fetch_add(1, std::memory_order_relaxed) + 1; }

 private:
  EncryptedStore(std::unique_ptr<Store> below, std::unique_ptr<os::AnonymousMemory> seals,
                 const PageCipher::Key& key)
      : below_(std::move(below)), seals_(std::move(seals)), key_(key) {}

  // SAFETY: sized in create(); a PageSeal of zeros is one that was never sealed.
  PageSeal* seals() const { return reinterpret_cast<PageSeal*>(seals_->data()); }

  std::unique_ptr<Store> below_;
  std::unique_ptr<os::AnonymousMemory> seals_;
  PageCipher::Key key_;
  std::atomic<std::uint64_t> numbers_{0};
};

}  // namespace isthmus::farmem
