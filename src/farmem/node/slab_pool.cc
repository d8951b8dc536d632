#include "farmem/node/slab_pool.h"

#include <bit>

#include "base/assert.h"

namespace isthmus::farmem {

Result<std::unique_ptr<SlabPool>> SlabPool::create(Options options) {
  if (!std::has_single_bit(options.slab_bytes) || options.slab_bytes < kLeastSlabBytes) {
    return fail(ErrorCode::kInvalid, "slabs of %llu bytes; take a power of two from %llu",
                static_cast<unsigned long long>(options.slab_bytes),
                static_cast<unsigned long long>(kLeastSlabBytes));
  }
  const std::uint64_t count = options.bytes / options.slab_bytes;
  if (count == 0 || count > UINT32_MAX) {
    return fail(ErrorCode::kInvalid,
                "%llu bytes to donate; at least one slab of %llu bytes makes sense",
                static_cast<unsigned long long>(options.bytes),
                static_cast<unsigned long long>(options.slab_bytes));
  }
  auto memory = ISTHMUS_TRY(os::AnonymousMemory::create(count * options.slab_bytes));
  memory->prefer_large_pages();
  return std::unique_ptr<SlabPool>(new SlabPool(std::move(memory), options.slab_bytes));
}

SlabPool::SlabPool(std::unique_ptr<os::AnonymousMemory> memory, std::uint64_t slab_bytes)
    : memory_(std::move(memory)),
      slab_bytes_(slab_bytes),
      taken_(memory_->size() / slab_bytes) {
  // The first slab is taken first.
  for (std::uint32_t slab = slab_count(); slab > 0; --slab) free_.push_back(slab - 1);
}

std::optional<std::uint32_t> SlabPool::take() {
  if (free_.empty()) return std::nullopt;
  const std::uint32_t slab = free_.back();
  free_.pop_back();
  // Again, for a write of the last owner's that was on its way when its right to it ended: a
  // process of this host writes by itself, and may be at it for a moment longer.
  zero(slab);
  taken_[slab] = true;
  return slab;
}

void SlabPool::give_back(std::uint32_t slab) {
  ISTHMUS_ASSERT(slab < slab_count() && taken_[slab]);
  taken_[slab] = false;
  zero(slab);
  // To the far end: the longer nobody uses it, the better for the case above.
  free_.insert(free_.begin(), slab);
}

void SlabPool::zero(std::uint32_t slab) {
  const os::AddressRange range{reinterpret_cast<std::uintptr_t>(memory_of(slab).data()),
                               slab_bytes_};
  page_drop_.drop({&range, 1});
}

}  // namespace isthmus::farmem
