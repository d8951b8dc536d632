// AddressRange: a piece of this process's address space, in bytes; the kernel wants whole pages.
#pragma once

#include <cstdint>

namespace isthmus::os {

constexpr std::uint64_t kPageBytes = 4096;

struct AddressRange {
  std::uint64_t start = 0;
  std::uint64_t bytes = 0;

  constexpr std::uint64_t end() const { return start + bytes; }
  friend constexpr bool operator==(AddressRange, AddressRange) = default;
};

// Whole pages, at least one, and not past the end of the address space.
constexpr bool is_whole_pages(AddressRange range) {
  return range.bytes > 0 && range.start % kPageBytes == 0 && range.bytes % kPageBytes == 0 &&
         range.start + range.bytes > range.start;
}

}  // namespace isthmus::os
