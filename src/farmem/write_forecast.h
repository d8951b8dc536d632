// WriteForecast: whether most pages that are being read now are written soon after.
//
// Of each page it is known whether it was written when it was last here (PageTable); this is for
// programs that begin to write what they have only read so far.
//
// Threading: under the pager's lock.
#pragma once

#include <cstdint>

namespace isthmus::farmem {

class WriteForecast {
 public:
  // So many pages are being installed write protected.
  void note_protected(std::uint32_t count) {
    protected_ += count;
    if (protected_ < kMemory) return;
    protected_ /= 2;
    written_ /= 2;
  }
  // One of those is written now.
  void note_write() { ++written_; }

  // At least three of four.
  bool most_are_written() const { return protected_ >= kEnough && 4 * written_ >= 3 * protected_; }

 private:
  static constexpr std::uint32_t kEnough = 32;
  static constexpr std::uint32_t kMemory = 512;

  std::uint32_t protected_ = 0;
  std::uint32_t written_ = 0;
};

}  // namespace isthmus::farmem
