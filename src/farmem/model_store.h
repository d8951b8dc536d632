// ModelStore: a store in memory of this machine, a model of the real one for tests and for
// measuring the pager alone. It can be slow, and it can fail.
//
// Threading: as Store; the settings before the transfers they are for.
#pragma once

#include <memory>

#include "farmem/store.h"
#include "os/anonymous_memory.h"

namespace isthmus::farmem {

struct ModelStoreOptions {
  std::uint32_t slot_count = 0;
  std::uint32_t slots_of_slab = 1024;
  std::uint32_t polls_until_done = 0;  // Each transfer completes after so many polls.
  bool remappable = true;
};

class ModelStore : public Store {
 public:
  static Result<std::unique_ptr<ModelStore>> create(ModelStoreOptions options);

  std::uint32_t slot_count() const override { return options_.slot_count; }
  std::uint32_t slots_of_slab() const override { return options_.slots_of_slab; }
  Result<std::unique_ptr<StoreChannel>> open_channel(std::uint32_t frames) override;
  Result<std::unique_ptr<Store>> join_in_child() override;

  // From now on every transfer is lost.
  void lose_everything() { lost_ = true; }
  bool lost() const { return lost_; }
  const ModelStoreOptions& options() const { return options_; }
  std::byte* slot(std::uint32_t index) const { return memory_->data() + std::size_t{index} * 4096; }

 private:
  ModelStore(ModelStoreOptions options, std::shared_ptr<os::AnonymousMemory> memory)
      : options_(options), memory_(std::move(memory)) {}

  ModelStoreOptions options_;
  std::shared_ptr<os::AnonymousMemory> memory_;  // Of children of fork() too.
  bool lost_ = false;
};

}  // namespace isthmus::farmem
