#include "memory/tracked_pages.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "base/assert.h"
#include "memory/line_compare.h"
#include "memory/line_pack.h"
#include "os/pagemap.h"
#include "os/process.h"

namespace isthmus::memory {
namespace {

// Pages copied by one system call: 256 KiB, which the second-level cache keeps until the
// comparison.
constexpr std::size_t kBatchPages = 64;

// SAFETY: only the kernel follows the address.
iovec piece_of(std::uint64_t address, std::size_t bytes) {
  return {reinterpret_cast<void*>(address), bytes};
}

Result<void> check(std::span<const os::AddressRange> ranges, TrackOptions options) {
  if (options.threshold_lines > kLinesOfPage) {
    return fail(ErrorCode::kInvalid, "a threshold of %u lines: a page has %zu",
                options.threshold_lines, kLinesOfPage);
  }
  if (ranges.size() > kMaxTrackedRanges) {
    return fail(ErrorCode::kNoMemory, "%zu ranges to track: %zu at most", ranges.size(),
                kMaxTrackedRanges);
  }
  std::size_t pages = 0;
  for (std::size_t i = 0; i < ranges.size(); ++i) {
    const auto address = static_cast<unsigned long long>(ranges[i].start);
    if (!os::is_whole_pages(ranges[i])) {
      return fail(ErrorCode::kInvalid,
                  "range %zu to track, %llu bytes at %#llx, is not whole pages", i,
                  static_cast<unsigned long long>(ranges[i].bytes), address);
    }
    const std::uint64_t more = ranges[i].bytes / kPageBytes;
    if (more > kMaxTrackedPages - pages) {
      return fail(ErrorCode::kNoMemory, "more than %zu pages to track", kMaxTrackedPages);
    }
    pages += more;
    if (!os::is_mapped(ranges[i])) {
      return fail(ErrorCode::kInvalid, "range %zu to track, at %#llx, is not mapped", i, address);
    }
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<TrackedPages>> TrackedPages::create(
    std::span<const os::AddressRange> ranges, TrackOptions options, Twins twins) {
  ISTHMUS_TRY_VOID(check(ranges, options));
  std::vector<Piece> pieces;
  std::size_t page_count = 0;
  for (const os::AddressRange range : ranges) {
    pieces.push_back({range, page_count});
    page_count += range.bytes / kPageBytes;
  }
  auto pages = std::unique_ptr<TrackedPages>(
      new TrackedPages(std::move(pieces), page_count, options));
  const auto& sorted = pages->by_address_;
  for (std::size_t i = 1; i < sorted.size(); ++i) {
    if (sorted[i].range.start < sorted[i - 1].range.end()) {
      return fail(ErrorCode::kInvalid, "two ranges to track overlap at %#llx",
                  static_cast<unsigned long long>(sorted[i].range.start));
    }
  }
  if (twins == Twins::kKept) {
    pages->twins_ = ISTHMUS_TRY(os::AnonymousMemory::create(page_count * kPageBytes));
    pages->snapshots_ = ISTHMUS_TRY(os::AnonymousMemory::create(kBatchPages * kPageBytes));
  }
  return pages;
}

TrackedPages::TrackedPages(std::vector<Piece> pieces, std::size_t page_count, TrackOptions options)
    : by_page_(std::move(pieces)),
      by_address_(by_page_),
      page_count_(page_count),
      options_(options),
      memory_(os::process_id()),
      suspects_((page_count + 63) / 64),
      dirty_(page_count) {
  for (const Piece& piece : by_page_) ranges_.push_back(piece.range);
  std::ranges::sort(by_address_, {}, [](const Piece& piece) { return piece.range.start; });
}

bool TrackedPages::overlaps(os::AddressRange range) const {
  return std::ranges::any_of(ranges_, [&](os::AddressRange ours) {
    return ours.start < range.end() && range.start < ours.end();
  });
}

std::uint64_t TrackedPages::address_of(std::size_t page) const {
  const auto next = std::ranges::upper_bound(by_page_, page, {}, &Piece::first_page);
  const Piece& piece = *std::prev(next);
  return piece.range.start + (page - piece.first_page) * kPageBytes;
}

std::span<std::byte, kPageBytes> TrackedPages::twin_of(std::size_t page) const {
  return std::span<std::byte, kPageBytes>(twins_->data() + page * kPageBytes, kPageBytes);
}

Result<void> TrackedPages::take_twins() {
  if (options_.base == TwinBase::kZeros) {
    for (const os::AddressRange range : ranges_) suspect(range.start, range.end());
    return {};
  }
  if (!twins_) return {};
  for (const Piece& piece : by_page_) {
    for (std::uint64_t done = 0; done < piece.range.bytes;) {
      // A gigabyte at a time: the kernel moves no more than 2 GiB in one call.
      const std::size_t bytes = std::min(piece.range.bytes - done, std::uint64_t{1} << 30);
      const iovec to{twins_->data() + piece.first_page * kPageBytes + done, bytes};
      const iovec from = piece_of(piece.range.start + done, bytes);
      const std::ptrdiff_t moved = memory_.read({&to, 1}, {&from, 1});
      if (moved <= 0) {
        return fail(ErrorCode::kInvalid, "the page to track at %#llx cannot be read",
                    static_cast<unsigned long long>(piece.range.start + done));
      }
      done += static_cast<std::uint64_t>(moved);
    }
  }
  return {};
}

void TrackedPages::suspect(std::uint64_t start, std::uint64_t end) {
  auto piece = std::ranges::upper_bound(by_address_, start, {},
                                        [](const Piece& one) { return one.range.start; });
  if (piece != by_address_.begin()) --piece;
  for (; piece != by_address_.end() && piece->range.start < end; ++piece) {
    const std::uint64_t from = std::max(start, piece->range.start);
    const std::uint64_t to = std::min(end, piece->range.end());
    for (std::uint64_t at = from; at < to; at += kPageBytes) {
      const std::size_t page = piece->first_page + (at - piece->range.start) / kPageBytes;
      suspects_[page / 64] |= std::uint64_t{1} << (page % 64);
    }
  }
}

void TrackedPages::compare_suspects() {
  std::array<std::size_t, kBatchPages> batch;
  std::size_t count = 0;
  for (std::size_t word = 0; word < suspects_.size(); ++word) {
    while (suspects_[word] != 0) {
      batch[count++] = word * 64 + static_cast<std::size_t>(std::countr_zero(suspects_[word]));
      suspects_[word] &= suspects_[word] - 1;
      if (count == batch.size()) {
        compare_batch(batch);
        count = 0;
      }
    }
  }
  compare_batch({batch.data(), count});
}

void TrackedPages::compare_batch(std::span<const std::size_t> pages) {
  if (!twins_) {
    for (const std::size_t page : pages) found(page, kAllLines);
    return;
  }
  std::array<iovec, kBatchPages> from;
  for (std::size_t i = 0; i < pages.size(); ++i) {
    from[i] = piece_of(address_of(pages[i]), kPageBytes);
  }
  // The kernel copies, because a page may be gone by now; it stops at such a page.
  for (std::size_t done = 0; done < pages.size();) {
    const std::size_t left = pages.size() - done;
    const iovec to{snapshots_->data(), left * kPageBytes};
    const std::ptrdiff_t moved = memory_.read({&to, 1}, {&from[done], left});
    const std::size_t whole = moved > 0 ? static_cast<std::size_t>(moved) / kPageBytes : 0;
    for (std::size_t i = 0; i < whole; ++i) {
      const std::size_t page = pages[done + i];
      const std::byte* now = snapshots_->data() + i * kPageBytes;
      const LineMask lines = differing_lines(now, twin_of(page).data());
      ++counters_.pages_compared;
      if (lines == kNoLines) continue;
      std::memcpy(twin_of(page).data(), now, kPageBytes);
      found(page, lines);
    }
    done += whole;
    if (whole < left) {
      ++counters_.pages_unreadable;
      ++done;
    }
  }
}

void TrackedPages::found(std::size_t page, LineMask lines) {
  const LineMask before = dirty_.lines_of(page);
  LineMask after = before | lines;
  if (count_lines(after) > options_.threshold_lines) after = kAllLines;
  dirty_.add(page, after);
  counters_.pages_dirty += before == kNoLines;
  counters_.pages_whole += after == kAllLines && before != kAllLines;
  counters_.lines_dirty += count_lines(after) - count_lines(before);
}

std::size_t TrackedPages::read(std::span<DirtyPage> buffer) {
  std::size_t count = 0;
  for (; count < buffer.size() && !dirty_.empty(); dirty_.pop_front()) {
    const std::size_t page = dirty_.front();
    buffer[count++] = {address_of(page), dirty_.lines_of(page)};
  }
  return count;
}

Result<std::size_t> TrackedPages::read_packed(std::span<std::byte> buffer) {
  if (!twins_) {
    return fail(ErrorCode::kUnsupported,
                "tracking by page keeps no copies: read the pages, or start with a threshold");
  }
  if (buffer.size() < kMaxPackedPageBytes) {
    return fail(ErrorCode::kInvalid, "a buffer of %zu bytes for packed lines: a page takes %zu",
                buffer.size(), kMaxPackedPageBytes);
  }
  LinePacker packer{buffer};
  while (!dirty_.empty()) {
    const std::size_t page = dirty_.front();
    if (!packer.add(page, dirty_.lines_of(page), twin_of(page))) break;
    dirty_.pop_front();
  }
  return packer.packed().size();
}

}  // namespace isthmus::memory
