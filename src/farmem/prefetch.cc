#include "farmem/prefetch.h"

#include <algorithm>

namespace isthmus::farmem {
namespace {

constexpr std::uint32_t kFirstWindow = 4;
constexpr std::int64_t kMostStride = 16;  // Pages; farther apart is not a stream.

std::int64_t distance(PageIndex from, PageIndex to) {
  return static_cast<std::int64_t>(to) - static_cast<std::int64_t>(from);
}

}  // namespace

const char* to_string(PrefetchPolicy policy) {
  switch (policy) {
    case PrefetchPolicy::kNone: return "none";
    case PrefetchPolicy::kNext: return "next";
    case PrefetchPolicy::kAdaptive: return "adaptive";
  }
  return "unknown";
}

// A fault exactly where the window ended, or within it (some of it was not fetched, or is gone).
Prefetcher::Stream* Prefetcher::continued_by(PageIndex page) {
  for (Stream& stream : streams_) {
    if (stream.used_at == 0 || stream.stride == 0) continue;
    const std::int64_t steps = distance(stream.last, page) / stream.stride;
    const bool on_path = distance(stream.last, page) % stream.stride == 0;
    if (on_path && steps >= 1 && steps <= static_cast<std::int64_t>(stream.window) + 1) {
      return &stream;
    }
  }
  return nullptr;
}

Prefetcher::Stream* Prefetcher::near(PageIndex page) {
  Stream* nearest = nullptr;
  for (Stream& stream : streams_) {
    if (stream.used_at == 0) continue;
    const std::int64_t apart = std::abs(distance(stream.last, page));
    if (apart == 0 || apart > kMostStride) continue;
    if (nearest == nullptr || apart < std::abs(distance(nearest->last, page))) nearest = &stream;
  }
  return nearest;
}

Prefetcher::Stream& Prefetcher::oldest() {
  return *std::ranges::min_element(streams_, {}, &Stream::used_at);
}

Window Prefetcher::on_fault(PageIndex page) {
  if (policy_ == PrefetchPolicy::kNone) return {};
  if (policy_ == PrefetchPolicy::kNext) return {.stride = 1, .count = kNextWindow};

  ++now_;
  if (Stream* stream = continued_by(page)) {
    const auto steps = static_cast<std::uint32_t>(distance(stream->last, page) / stream->stride);
    // All of the window was walked through: widen. A fault inside it: it was too wide.
    const bool all = steps == stream->window + 1;
    stream->window = all
                         ? std::clamp(2 * stream->window, kFirstWindow, kMostWindow)
                         : std::max(stream->window / 2, 1u);
    stream->last = page;
    stream->used_at = now_;
    return {.stride = stream->stride, .count = stream->window, .used = steps - 1};
  }
  if (Stream* stream = near(page)) {
    // Twice the same distance makes a stream; any distance once is a guess worth nothing yet,
    // except to the very next page.
    const auto stride = static_cast<std::int32_t>(distance(stream->last, page));
    const bool again = stream->stride == stride || stride == 1;
    *stream = {.last = page, .stride = stride, .window = again ? kFirstWindow : 0, .used_at = now_};
    return {.stride = stride, .count = stream->window};
  }
  oldest() = {.last = page, .stride = 0, .window = 0, .used_at = now_};
  return {};
}

}  // namespace isthmus::farmem
