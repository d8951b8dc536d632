// FarRanges: which parts of the far region are in use, for those who map memory there.
//
// Primer: the free ranges stand in one array, in the order of their addresses, neighbours merged,
// so that what comes back is handed out again as one piece. A range is taken from the first free
// one that it fits into: low addresses fill up first, and the far end of the region stays whole.
//
// Cost: taking and giving back move the array behind the place; programs have few free ranges,
// because their allocators keep what they have mapped.
//
// Threading: one caller at a time. Nothing is allocated after create().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.h"
#include "os/address_range.h"
#include "os/anonymous_memory.h"

namespace isthmus::farmem {

class FarRanges {
 public:
  // `region` is whole pages; all of it is free.
  static Result<std::unique_ptr<FarRanges>> create(os::AddressRange region);

  // Whole pages; nothing when no free range is as large.
  std::optional<os::AddressRange> take(std::uint64_t bytes);
  // These whole pages of the region; false when one of them is in use.
  bool take_at(os::AddressRange range);
  // Those of these pages that are in use are free again.
  void give_back(os::AddressRange range);

  std::uint64_t free_bytes() const { return free_bytes_; }
  std::size_t free_range_count() const { return count_; }

 private:
  FarRanges(os::AddressRange region, std::unique_ptr<os::AnonymousMemory> memory);

  // SAFETY: page aligned, and sized in create() for as many free ranges as there can be.
  os::AddressRange* ranges() const { return reinterpret_cast<os::AddressRange*>(memory_->data()); }
  std::size_t first_ending_past(std::uint64_t address) const;
  void remove(std::size_t index, std::size_t count);
  void insert(std::size_t index, os::AddressRange range);

  os::AddressRange region_;
  std::unique_ptr<os::AnonymousMemory> memory_;
  std::size_t count_ = 0;
  std::uint64_t free_bytes_ = 0;
};

}  // namespace isthmus::farmem
