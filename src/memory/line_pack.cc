#include "memory/line_pack.h"

#include <bit>
#include <cstring>

#include "base/assert.h"

namespace isthmus::memory {
namespace {

void store_little_endian(std::byte* to, std::uint64_t value) {
  for (int i = 0; i < 8; ++i) to[i] = static_cast<std::byte>(value >> (8 * i));
}

std::uint64_t load_little_endian(const std::byte* from) {
  std::uint64_t value = 0;
  for (int i = 0; i < 8; ++i) value |= static_cast<std::uint64_t>(from[i]) << (8 * i);
  return value;
}

// The number of the lowest line; takes it out of the mask.
std::size_t take_lowest(LineMask& lines) {
  const auto line = static_cast<std::size_t>(std::countr_zero(lines));
  lines &= lines - 1;
  return line;
}

}  // namespace

bool LinePacker::add(std::uint64_t page, LineMask lines,
                     std::span<const std::byte, kPageBytes> bytes) {
  if (lines == kNoLines || packed_bytes(lines) > buffer_.size() - used_) return false;
  std::byte* to = buffer_.data() + used_;
  used_ += packed_bytes(lines);
  store_little_endian(to, page);
  store_little_endian(to + 8, lines);
  to += kPackedHeaderBytes;
  while (lines != kNoLines) {
    std::memcpy(to, bytes.data() + take_lowest(lines) * kLineBytes, kLineBytes);
    to += kLineBytes;
  }
  return true;
}

Result<std::optional<PackedPage>> LineUnpacker::next() {
  if (rest_.empty()) return std::optional<PackedPage>{};
  if (rest_.size() < kPackedHeaderBytes) {
    return fail(ErrorCode::kInvalid, "packed lines end within a header: %zu of %zu bytes",
                rest_.size(), kPackedHeaderBytes);
  }
  const std::uint64_t page = load_little_endian(rest_.data());
  const LineMask lines = load_little_endian(rest_.data() + 8);
  if (page >= page_count_) {
    return fail(ErrorCode::kInvalid, "packed lines name page %llu of %llu",
                static_cast<unsigned long long>(page),
                static_cast<unsigned long long>(page_count_));
  }
  if (lines == kNoLines) return fail(ErrorCode::kInvalid, "packed lines have a page of no line");
  if (rest_.size() < packed_bytes(lines)) {
    return fail(ErrorCode::kInvalid, "packed lines are cut short: %zu of %zu bytes", rest_.size(),
                packed_bytes(lines));
  }
  const PackedPage found{page, lines,
                         rest_.subspan(kPackedHeaderBytes, count_lines(lines) * kLineBytes)};
  rest_ = rest_.subspan(packed_bytes(lines));
  return std::optional{found};
}

void apply_lines(const PackedPage& packed, std::span<std::byte, kPageBytes> page) {
  ISTHMUS_ASSERT(packed.bytes.size() == count_lines(packed.lines) * kLineBytes);
  const std::byte* from = packed.bytes.data();
  for (LineMask lines = packed.lines; lines != kNoLines; from += kLineBytes) {
    std::memcpy(page.data() + take_lowest(lines) * kLineBytes, from, kLineBytes);
  }
}

}  // namespace isthmus::memory
