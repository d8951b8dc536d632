#include "memory/line_set.h"

#include "base/assert.h"

namespace isthmus::memory {

LineSet::LineSet(std::size_t page_count) : masks_(page_count) { touched_.reserve(page_count); }

void LineSet::add(std::size_t page, LineMask lines) {
  ISTHMUS_ASSERT(page < masks_.size());
  if (lines == kNoLines) return;
  if (masks_[page] == kNoLines) {
    if (touched_.size() == touched_.capacity()) {
      // Full of pages that were taken and came again: the rest moves to the front, in place.
      touched_.erase(touched_.begin(), touched_.begin() + static_cast<std::ptrdiff_t>(first_));
      first_ = 0;
    }
    touched_.push_back(static_cast<std::uint32_t>(page));
  }
  masks_[page] |= lines;
}

std::size_t LineSet::front() const {
  ISTHMUS_ASSERT(!empty());
  return touched_[first_];
}

void LineSet::pop_front() {
  masks_[front()] = kNoLines;
  if (++first_ == touched_.size()) {
    touched_.clear();
    first_ = 0;
  }
}

void LineSet::clear() {
  while (!empty()) pop_front();
}

}  // namespace isthmus::memory
