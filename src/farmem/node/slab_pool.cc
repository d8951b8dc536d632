#include "farmem/node/slab_pool.h"

#include <algorithm>
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
  const std::uint64_t bytes = count * options.slab_bytes;
  os::Fd file = ISTHMUS_TRY(os::create_shared_memory("isthmus-slabs", bytes));
  auto memory = ISTHMUS_TRY(os::Mapping::create(file, bytes));
  return std::unique_ptr<SlabPool>(
      new SlabPool(std::move(file), std::move(memory), options.slab_bytes));
}

SlabPool::SlabPool(os::Fd file, std::unique_ptr<os::Mapping> memory, std::uint64_t slab_bytes)
    : file_(std::move(file)),
      memory_(std::move(memory)),
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
  if (os::discard_shared_memory(file_, offset_of(slab), slab_bytes_)) return;
  std::ranges::fill(memory_of(slab), std::byte{0});
}

}  // namespace isthmus::farmem
