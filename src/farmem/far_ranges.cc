#include "farmem/far_ranges.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"

namespace isthmus::farmem {

Result<std::unique_ptr<FarRanges>> FarRanges::create(os::AddressRange region) {
  ISTHMUS_ASSERT(os::is_whole_pages(region));
  // Every second page free is the worst case, with one more while two are being merged.
  const std::uint64_t most = region.bytes / os::kPageBytes / 2 + 2;
  auto memory = ISTHMUS_TRY(os::AnonymousMemory::create(most * sizeof(os::AddressRange)));
  return std::unique_ptr<FarRanges>(new FarRanges(region, std::move(memory)));
}

FarRanges::FarRanges(os::AddressRange region, std::unique_ptr<os::AnonymousMemory> memory)
    : region_(region), memory_(std::move(memory)) {
  insert(0, region);
  free_bytes_ = region.bytes;
}

std::size_t FarRanges::first_ending_past(std::uint64_t address) const {
  const os::AddressRange* found =
      std::partition_point(ranges(), ranges() + count_,
                           [address](os::AddressRange range) { return range.end() <= address; });
  return static_cast<std::size_t>(found - ranges());
}

void FarRanges::remove(std::size_t index, std::size_t count) {
  std::memmove(ranges() + index, ranges() + index + count,
               (count_ - index - count) * sizeof(os::AddressRange));
  count_ -= count;
}

void FarRanges::insert(std::size_t index, os::AddressRange range) {
  ISTHMUS_ASSERT((count_ + 1) * sizeof(os::AddressRange) <= memory_->size());
  std::memmove(ranges() + index + 1, ranges() + index,
               (count_ - index) * sizeof(os::AddressRange));
  ranges()[index] = range;
  ++count_;
}

std::optional<os::AddressRange> FarRanges::take(std::uint64_t bytes) {
  ISTHMUS_ASSERT(bytes > 0 && bytes % os::kPageBytes == 0);
  for (std::size_t index = 0; index < count_; ++index) {
    os::AddressRange& range = ranges()[index];
    if (range.bytes < bytes) continue;
    const os::AddressRange taken{range.start, bytes};
    range = {range.start + bytes, range.bytes - bytes};
    if (range.bytes == 0) remove(index, 1);
    free_bytes_ -= bytes;
    return taken;
  }
  return std::nullopt;
}

bool FarRanges::take_at(os::AddressRange range) {
  ISTHMUS_ASSERT(os::is_whole_pages(range));
  const std::size_t index = first_ending_past(range.start);
  if (index == count_) return false;
  const os::AddressRange whole = ranges()[index];
  if (whole.start > range.start || whole.end() < range.end()) return false;

  const os::AddressRange before{whole.start, range.start - whole.start};
  const os::AddressRange behind{range.end(), whole.end() - range.end()};
  if (before.bytes > 0 && behind.bytes > 0) {
    ranges()[index] = before;
    insert(index + 1, behind);
  } else if (before.bytes > 0 || behind.bytes > 0) {
    ranges()[index] = before.bytes > 0 ? before : behind;
  } else {
    remove(index, 1);
  }
  free_bytes_ -= range.bytes;
  return true;
}

void FarRanges::give_back(os::AddressRange range) {
  ISTHMUS_ASSERT(os::is_whole_pages(range));
  ISTHMUS_ASSERT(range.start >= region_.start && range.end() <= region_.end());
  // All free ranges that overlap or touch it become one with it.
  std::size_t first = first_ending_past(range.start);
  if (first > 0 && ranges()[first - 1].end() == range.start) --first;
  std::size_t last = first;
  std::uint64_t start = range.start;
  std::uint64_t end = range.end();
  std::uint64_t merged_bytes = 0;
  for (; last < count_ && ranges()[last].start <= range.end(); ++last) {
    start = std::min(start, ranges()[last].start);
    end = std::max(end, ranges()[last].end());
    merged_bytes += ranges()[last].bytes;
  }
  remove(first, last - first);
  insert(first, {start, end - start});
  free_bytes_ += end - start - merged_bytes;
}

}  // namespace isthmus::farmem
