// PageMarks: one bit for each page of a region: what was once done to a page and is to be undone.
//
// Threading: one caller at a time. Nothing is allocated after create(). A page of bits is taken
// from the kernel when a bit in it is first set.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>

#include "base/result.h"
#include "os/address_range.h"
#include "os/anonymous_memory.h"

namespace isthmus::preload {

enum class Mark : std::uint8_t { kOff, kOn };

class PageMarks {
 public:
  static Result<std::unique_ptr<PageMarks>> create(os::AddressRange region);

  void set(os::AddressRange range, Mark mark);
  bool any(os::AddressRange range) const;
  // The first pages of the range that are marked alike.
  std::optional<os::AddressRange> first_run(os::AddressRange range, Mark mark) const;

 private:
  PageMarks(os::AddressRange region, std::unique_ptr<os::AnonymousMemory> memory)
      : region_(region), memory_(std::move(memory)) {}

  // SAFETY: zeroed, page aligned, and one bit for each page of the region.
  std::uint64_t* words() const { return reinterpret_cast<std::uint64_t*>(memory_->data()); }
  bool is_marked(std::uint64_t page) const { return (words()[page / 64] >> (page % 64) & 1) != 0; }
  std::uint64_t page_of(std::uint64_t address) const {
    return (address - region_.start) / os::kPageBytes;
  }
  std::uint64_t find(std::uint64_t first, std::uint64_t end, Mark mark) const;

  os::AddressRange region_;
  std::unique_ptr<os::AnonymousMemory> memory_;
  std::uint64_t marked_ = 0;  // Pages; with none, looking costs nothing.
};

}  // namespace isthmus::preload
