// SlabPool: the memory that a node donates, in slabs of equal size.
//
// Memory is taken from the kernel when it is first written, and given back to it when its slab is
// released. That is also what zeroes it: nobody gets to see what another one wrote.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "os/anonymous_memory.h"
#include "os/page_drop.h"

namespace isthmus::farmem {

constexpr std::uint64_t kSlabBytes = 64u << 20;
constexpr std::uint64_t kLeastSlabBytes = 64u << 10;

class SlabPool {
 public:
  struct Options {
    std::uint64_t bytes = 0;                  // Rounded down to whole slabs, at least one.
    std::uint64_t slab_bytes = kSlabBytes;    // A power of two, from kLeastSlabBytes.
  };
  static Result<std::unique_ptr<SlabPool>> create(Options options);

  std::uint64_t slab_bytes() const { return slab_bytes_; }
  std::uint32_t slab_count() const { return static_cast<std::uint32_t>(taken_.size()); }
  std::uint32_t free_count() const { return static_cast<std::uint32_t>(free_.size()); }

  // A slab of zeros. Nothing: none is free.
  std::optional<std::uint32_t> take();
  // Nobody else may be able to reach it any more.
  void give_back(std::uint32_t slab);

  std::span<std::byte> memory_of(std::uint32_t slab) const {
    return {memory_->data() + slab * slab_bytes_, slab_bytes_};
  }

 private:
  SlabPool(std::unique_ptr<os::AnonymousMemory> memory, std::uint64_t slab_bytes);
  void zero(std::uint32_t slab);

  std::unique_ptr<os::AnonymousMemory> memory_;
  const std::uint64_t slab_bytes_;
  os::PageDrop page_drop_;
  std::vector<bool> taken_;
  std::vector<std::uint32_t> free_;
};

}  // namespace isthmus::farmem
