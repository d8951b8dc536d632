#include "memory/line_compare.h"

#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/assert.h"

namespace isthmus::memory {
namespace {

using Compare = LineMask (*)(const std::byte*, const std::byte*);

LineMask compare_portable(const std::byte* page, const std::byte* twin) {
  LineMask lines = kNoLines;
  for (std::size_t line = 0; line < kLinesOfPage; ++line) {
    const std::size_t at = line * kLineBytes;
    const LineMask differs = std::memcmp(page + at, twin + at, kLineBytes) != 0;
    lines |= differs << line;
  }
  return lines;
}

#if defined(__x86_64__)
// SAFETY (both): unaligned loads of 64 bytes at most, within the 4096 of each page.
__attribute__((target("avx2"))) LineMask compare_avx2(const std::byte* page,
                                                      const std::byte* twin) {
  LineMask lines = kNoLines;
  for (std::size_t line = 0; line < kLinesOfPage; ++line) {
    const auto* a = reinterpret_cast<const __m256i*>(page + line * kLineBytes);
    const auto* b = reinterpret_cast<const __m256i*>(twin + line * kLineBytes);
    const __m256i low = _mm256_xor_si256(_mm256_loadu_si256(a), _mm256_loadu_si256(b));
    const __m256i high = _mm256_xor_si256(_mm256_loadu_si256(a + 1), _mm256_loadu_si256(b + 1));
    const __m256i either = _mm256_or_si256(low, high);
    const LineMask differs = _mm256_testz_si256(either, either) == 0;
    lines |= differs << line;
  }
  return lines;
}

__attribute__((target("avx512f"))) LineMask compare_avx512(const std::byte* page,
                                                           const std::byte* twin) {
  LineMask lines = kNoLines;
  for (std::size_t line = 0; line < kLinesOfPage; ++line) {
    const __m512i a = _mm512_loadu_si512(page + line * kLineBytes);
    const __m512i b = _mm512_loadu_si512(twin + line * kLineBytes);
    const LineMask differs = _mm512_cmpneq_epi64_mask(a, b) != 0;
    lines |= differs << line;
  }
  return lines;
}
#endif

Compare compare_of(CompareKind kind) {
#if defined(__x86_64__)
  if (kind == CompareKind::kAvx512) return compare_avx512;
  if (kind == CompareKind::kAvx2) return compare_avx2;
#endif
  return kind == CompareKind::kPortable ? compare_portable : nullptr;
}

}  // namespace

const char* to_string(CompareKind kind) {
  switch (kind) {
    case CompareKind::kPortable: return "portable";
    case CompareKind::kAvx2: return "AVX2";
    case CompareKind::kAvx512: return "AVX-512";
  }
  return "unknown";
}

CompareKind best_compare_kind() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return CompareKind::kAvx512;
  if (__builtin_cpu_supports("avx2")) return CompareKind::kAvx2;
#endif
  return CompareKind::kPortable;
}

LineMask differing_lines(const std::byte* page, const std::byte* twin) {
  static const Compare best = compare_of(best_compare_kind());
  return best(page, twin);
}

LineMask differing_lines(const std::byte* page, const std::byte* twin, CompareKind kind) {
  ISTHMUS_ASSERT(kind <= best_compare_kind());
  return compare_of(kind)(page, twin);
}

}  // namespace isthmus::memory
