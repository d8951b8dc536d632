// LineSet: which 64-byte lines of which 4 KiB pages are dirty, one 64-bit mask a page.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "os/address_range.h"

namespace isthmus::memory {

constexpr std::size_t kPageBytes = os::kPageBytes;
constexpr std::size_t kLineBytes = 64;
constexpr std::size_t kLinesOfPage = kPageBytes / kLineBytes;
static_assert(kLinesOfPage == 64, "a mask has one bit a line");

// Bit i stands for the bytes [64 i, 64 i + 64) of the page.
using LineMask = std::uint64_t;
constexpr LineMask kNoLines = 0;
constexpr LineMask kAllLines = ~LineMask{0};

constexpr std::size_t count_lines(LineMask lines) {
  return static_cast<std::size_t>(std::popcount(lines));
}

// Over pages 0 to page_count - 1; takes 12 bytes a page at once and nothing later. Pages come out
// in the order in which they were first added.
class LineSet {
 public:
  explicit LineSet(std::size_t page_count = 0);

  // The union with what is there; no line adds nothing.
  void add(std::size_t page, LineMask lines);
  LineMask lines_of(std::size_t page) const { return masks_[page]; }

  bool empty() const { return first_ == touched_.size(); }
  std::size_t page_count() const { return touched_.size() - first_; }
  // The first page that is not taken yet; the set must not be empty.
  std::size_t front() const;
  void pop_front();
  void clear();

 private:
  std::vector<LineMask> masks_;
  std::vector<std::uint32_t> touched_;  // From first_ on: the pages whose mask is not 0.
  std::size_t first_ = 0;
};

}  // namespace isthmus::memory
