// EncryptedStore: a store whose nodes see ciphertext only.
//
// It stands before another store. Each page is sealed on its way out, from its staging frame into a
// frame of the other store's channel, and opened on its way in. A page that does not open is lost,
// like one whose node is gone. Key and seals, 24 bytes a page, never leave this process and its
// children after fork(), each of which numbers what it seals in a range of its own.
//
// Threading: as Store. Channels share the seals: two of them never move one slot at a time.
#pragma once

#include <atomic>
#include <cstdint>
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
  std::uint64_t expect_child() override { return below_->expect_child(); }
  void expect_nobody() override { below_->expect_nobody(); }
  Result<std::unique_ptr<Store>> join_in_child() override;

  // For the channels.
  PageSeal& seal_of(std::uint32_t slot) { return seals()[slot]; }
  std::uint64_t next_number();

 private:
  struct Parts {
    std::unique_ptr<Store> below;
    std::shared_ptr<os::AnonymousMemory> seals;
    std::shared_ptr<os::AnonymousMemory> ranges;
    PageCipher::Key key;
  };
  explicit EncryptedStore(Parts parts);
  std::uint64_t draw_range() const;

  // SAFETY: sized in create(); a PageSeal of zeros is one that was never sealed.
  PageSeal* seals() const { return reinterpret_cast<PageSeal*>(seals_->data()); }

  std::unique_ptr<Store> below_;
  std::shared_ptr<os::AnonymousMemory> seals_;
  std::shared_ptr<os::AnonymousMemory> ranges_;  // Of numbers: how many were drawn, by all.
  PageCipher::Key key_;
  std::atomic<std::uint64_t> numbers_;
};

}  // namespace isthmus::farmem
