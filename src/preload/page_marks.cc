#include "preload/page_marks.h"

#include "base/assert.h"

namespace isthmus::preload {

Result<std::unique_ptr<PageMarks>> PageMarks::create(os::AddressRange region) {
  ISTHMUS_ASSERT(os::is_whole_pages(region));
  const std::uint64_t words = (region.bytes / os::kPageBytes + 63) / 64;
  auto memory = ISTHMUS_TRY(os::AnonymousMemory::create(words * sizeof(std::uint64_t)));
  return std::unique_ptr<PageMarks>(new PageMarks(region, std::move(memory)));
}

void PageMarks::set(os::AddressRange range, Mark mark) {
  if (mark == Mark::kOff && marked_ == 0) return;
  const std::uint64_t end = page_of(range.end());
  for (std::uint64_t page = page_of(range.start); page < end; ++page) {
    if (is_marked(page) == (mark == Mark::kOn)) continue;
    words()[page / 64] ^= std::uint64_t{1} << (page % 64);
    marked_ += mark == Mark::kOn ? 1 : -1;
  }
}

bool PageMarks::any(os::AddressRange range) const {
  return first_run(range, Mark::kOn).has_value();
}

std::optional<os::AddressRange> PageMarks::first_run(os::AddressRange range, Mark mark) const {
  if (marked_ == 0) return mark == Mark::kOn ? std::nullopt : std::optional(range);
  const std::uint64_t end = page_of(range.end());
  const std::uint64_t first = find(page_of(range.start), end, mark);
  if (first == end) return std::nullopt;
  const std::uint64_t behind = find(first, end, mark == Mark::kOn ? Mark::kOff : Mark::kOn);
  return os::AddressRange{region_.start + first * os::kPageBytes,
                          (behind - first) * os::kPageBytes};
}

std::uint64_t PageMarks::find(std::uint64_t first, std::uint64_t end, Mark mark) const {
  const std::uint64_t none = mark == Mark::kOn ? 0 : ~std::uint64_t{0};
  for (std::uint64_t page = first; page < end;) {
    if (page % 64 == 0 && words()[page / 64] == none) {
      page += 64;
      continue;
    }
    if (is_marked(page) == (mark == Mark::kOn)) return page;
    ++page;
  }
  return end;
}

}  // namespace isthmus::preload
