// Prefetch: which pages to fetch together with one that is needed now.
//
// Policies: none; the next N; or adaptive. Adaptive follows US12019554B2 in software: the fault
// stands for the read of a page-table line, whose eight entries name the first candidates. Streams
// (sequential, or with a constant stride either way) are recognised by their last fault and widen
// their window while the pages fetched ahead turn out to be used, and narrow it when not. A fault
// that continues no stream fetches nothing ahead.
//
// A page fetched ahead is seen to be used when the stream faults just past its window: the
// program walked through it. That costs nothing, where watching each page would cost a fault.
//
// Threading: under the pager's lock. No I/O, no clock: the same faults give the same answers.
#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "farmem/page_table.h"

namespace isthmus::farmem {

enum class PrefetchPolicy : std::uint8_t { kNone, kNext, kAdaptive };
const char* to_string(PrefetchPolicy policy);

constexpr std::uint32_t kPagesOfTableLine = 8;  // 64 bytes of 8-byte page-table entries.
constexpr std::uint32_t kMostWindow = 64;       // Pages after the one that faulted.
constexpr std::uint32_t kNextWindow = kPagesOfTableLine - 1;  // Of kNext.

// Pages to fetch: page + stride, page + 2 * stride, ... `count` of them.
struct Window {
  std::int32_t stride = 1;
  std::uint32_t count = 0;
  std::uint32_t used = 0;  // Pages of earlier windows that are now known to have been used.
};

class Prefetcher {
 public:
  explicit Prefetcher(PrefetchPolicy policy) : policy_(policy) {}

  // A fault that needs page from the store, or is its first touch.
  Window on_fault(PageIndex page);
  PrefetchPolicy policy() const { return policy_; }

 private:
  struct Stream {
    PageIndex last = 0;  // Last fault.
    std::int32_t stride = 0;
    std::uint32_t window = 0;
    std::uint64_t used_at = 0;
  };
  static constexpr std::size_t kStreams = 16;

  Stream* continued_by(PageIndex page);
  Stream* near(PageIndex page);
  Stream& oldest();

  PrefetchPolicy policy_;
  std::array<Stream, kStreams> streams_{};
  std::uint64_t now_ = 0;
};

}  // namespace isthmus::farmem
