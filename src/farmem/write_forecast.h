// WriteForecast: whether a page that is being read now will be written soon.
//
// A page installed for reading is write protected: its first write is another fault, 2.5 µs. One
// installed writable may be written to the store for nothing: 1 to 2 µs and the network. So where
// more than half of the pages read lately were written later, the next ones are installed writable;
// one of sixteen still is not, so that a change is noticed.
//
// Threading: under the pager's lock.
#pragma once

#include <cstdint>

namespace isthmus::farmem {

class WriteForecast {
 public:
  // A page is being installed for reading. True: install it writable.
  bool expect_write() {
    if (2 * written_ > protected_ && protected_ >= kEnough && ++turn_ % kSample != 0) return true;
    if (++protected_ >= kMemory) {
      protected_ /= 2;
      written_ /= 2;
    }
    return false;
  }
  // One that was installed for reading is written now.
  void note_write() { ++written_; }

 private:
  static constexpr std::uint32_t kSample = 16;
  static constexpr std::uint32_t kEnough = 32;
  static constexpr std::uint32_t kMemory = 512;

  std::uint32_t protected_ = 0;
  std::uint32_t written_ = 0;
  std::uint32_t turn_ = 0;
};

}  // namespace isthmus::farmem
