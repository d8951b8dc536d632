// Dirty lines as bytes: what goes to a memory node in one write.
//
//     page number   8 bytes, little-endian
//     mask          8 bytes, little-endian; not 0
//     lines         64 bytes for each bit of the mask, from the lowest
//     ...           the next page, to the end of the buffer
//
// Input: the unpacker's bytes come from a peer; none of them may trip an assertion.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "memory/line_set.h"

namespace isthmus::memory {

constexpr std::size_t kPackedHeaderBytes = 16;
constexpr std::size_t packed_bytes(LineMask lines) {
  return kPackedHeaderBytes + count_lines(lines) * kLineBytes;
}
constexpr std::size_t kMaxPackedPageBytes = packed_bytes(kAllLines);
static_assert(kMaxPackedPageBytes == 4112);

class LinePacker {
 public:
  explicit LinePacker(std::span<std::byte> buffer) : buffer_(buffer) {}

  // Takes the lines from the page's 4096 bytes. False when they do not fit, or are none: nothing
  // was written.
  bool add(std::uint64_t page, LineMask lines, std::span<const std::byte, kPageBytes> bytes);
  std::span<const std::byte> packed() const { return buffer_.first(used_); }

 private:
  std::span<std::byte> buffer_;
  std::size_t used_ = 0;
};

struct PackedPage {
  std::uint64_t page;
  LineMask lines;
  std::span<const std::byte> bytes;  // The lines, one after the other.
};

class LineUnpacker {
 public:
  // Pages from `page_count` on are refused.
  LineUnpacker(std::span<const std::byte> packed, std::uint64_t page_count)
      : rest_(packed), page_count_(page_count) {}

  // Nothing at the end. kInvalid: cut short, no line, or a page out of bounds; the rest is lost.
  Result<std::optional<PackedPage>> next();

 private:
  std::span<const std::byte> rest_;
  std::uint64_t page_count_;
};

// Puts the lines where they belong in the page. They come from LineUnpacker, so the lengths agree.
void apply_lines(const PackedPage& packed, std::span<std::byte, kPageBytes> page);

}  // namespace isthmus::memory
