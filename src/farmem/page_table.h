// PageTable: where each page of a region is. Which slot of the store it has: slot_pool.h.
//
// The tables are memory straight from the kernel, never the program's heap, which may be far: 7
// bytes a page, taken when the page is first touched.
//
// Threading: under the pager's lock; state() may be read by anyone, for looking only.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"
#include "os/anonymous_memory.h"

namespace isthmus::farmem {

// Counted from the start of the region.
using PageIndex = std::uint32_t;

enum class PageState : std::uint8_t {
  kEmpty,   // Never touched, or discarded: zeros, and nowhere.
  kClean,   // Here, write protected, and the same in its slot.
  kDirty,   // Here, writable; what its slot has is old, if it has a slot.
  kRemote,  // In its slot only.
  kStaged,  // In a staging frame, not mapped: on its way in or out.
  kLost,    // In its slot, which cannot be reached any more.
};
const char* to_string(PageState state);

class PageTable {
 public:
  static Result<std::unique_ptr<PageTable>> create(std::uint32_t page_count);

  std::uint32_t page_count() const { return page_count_; }

  PageState state(PageIndex page) const {
    return static_cast<PageState>(states()[page].load(std::memory_order_relaxed));
  }
  void set_state(PageIndex page, PageState state) {
    states()[page].store(static_cast<std::uint8_t>(state), std::memory_order_relaxed);
  }

  // One byte a page, for whoever looks from another process.
  std::uint64_t states_address() const { return reinterpret_cast<std::uint64_t>(states()); }

  // The staging frame of a page that is kStaged; counted over all channels.
  std::uint32_t frame(PageIndex page) const { return frames()[page]; }
  void set_frame(PageIndex page, std::uint32_t frame) { frames()[page] = frame; }

  // Whether it was written when it was last here for reading: then it will be again.
  bool expects_write(PageIndex page) const { return written_at()[page] != 0; }
  void set_expects_write(PageIndex page, bool expected) { written_at()[page] = expected; }

  std::uint8_t pins(PageIndex page) const { return pins_at()[page]; }
  void set_pins(PageIndex page, std::uint8_t pins) { pins_at()[page] = pins; }

 private:
  PageTable(std::uint32_t page_count, std::unique_ptr<os::AnonymousMemory> memory)
      : page_count_(page_count), memory_(std::move(memory)) {}

  // SAFETY: the memory is zeroed, page aligned, and sized for these arrays in create().
  std::uint32_t* frames() const { return reinterpret_cast<std::uint32_t*>(memory_->data()); }
  std::atomic<std::uint8_t>* states() const {
    return reinterpret_cast<std::atomic<std::uint8_t>*>(frames() + page_count_);
  }
  std::uint8_t* pins_at() const {
    return reinterpret_cast<std::uint8_t*>(states() + page_count_);
  }
  std::uint8_t* written_at() const { return pins_at() + page_count_; }

  std::uint32_t page_count_;
  std::unique_ptr<os::AnonymousMemory> memory_;
};

}  // namespace isthmus::farmem
