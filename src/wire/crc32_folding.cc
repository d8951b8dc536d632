// CRC-32 by folding with carry-less multiplication.
//
// Primer: 16 message bytes are a polynomial of degree 127. Standing D bits before the end of the
// message it counts as A * x^D, and A * x^D modulo P may be replaced by anything congruent of
// degree below 128, xored onto the 16 bytes that stand D bits later. Split A into 64-bit halves:
//
//     A * x^D  =  low * x^(D + 64)  +  high * x^D      (low: the earlier bytes, reflected)
//
// and multiply each half by its power of x reduced modulo P, which has 32 bits. In reflected order
// a product of two 64-bit registers reads one place too low, as if multiplied by x, so the
// constants are one power lower: x^(D + 63) and x^(D - 1). Several accumulators hide the
// multiplier's latency; at the end they are folded into one, and that is reduced to 32 bits.
//
// Spec: V. Gopal et al., "Fast CRC computation for generic polynomials using PCLMULQDQ", 2009.
#if defined(__x86_64__)

#include <immintrin.h>

#include <array>

#include "wire/byte_order.h"
#include "wire/crc32.h"
#include "wire/crc32_polynomial.h"

namespace isthmus::wire {
namespace {

// A residue as a 64-bit operand: coefficient of x^0 in bit 63.
constexpr std::uint64_t operand(std::uint64_t exponent) {
  return std::uint64_t{crc32_x_power(exponent)} << 32;
}

struct FoldConstants {
  std::uint64_t low;
  std::uint64_t high;
};
constexpr FoldConstants fold_by(std::uint64_t bits) {
  return {operand(bits + 63), operand(bits - 1)};
}

// Division of a polynomial of degree 63 by P, after Barrett: the quotient's constant
// floor(x^64 / P) and P itself, both 33 bits, reflected (bit 0 is x^32).
constexpr std::uint64_t reciprocal() {
  std::uint64_t quotient = 0;
  std::uint32_t rest = 0x8000'0000;  // 1, and then the rest of x^k divided by P, for k to 64.
  for (int k = 1; k <= 64; ++k) {
    // The quotient's coefficient of x^(64 - k) is the one that overflows at step k.
    if ((rest & 1) != 0) quotient |= std::uint64_t{1} << (32 - (64 - k));
    rest = crc32_multiply_by_x(rest);
  }
  return quotient;
}
constexpr std::uint64_t kReciprocal = reciprocal();
constexpr std::uint64_t kDivisor = (std::uint64_t{kCrc32Polynomial} << 1) | 1;
static_assert(kDivisor == 0x1'db71'0641 && kReciprocal == 0x1'f701'1641,
              "the values of the paper, appendix");

[[gnu::target("pclmul,sse4.1")]] inline __m128i constants(FoldConstants k) {
  return _mm_set_epi64x(static_cast<long long>(k.high), static_cast<long long>(k.low));
}

[[gnu::target("pclmul,sse4.1")]] inline __m128i load(const std::byte* at) {
  // SAFETY: an unaligned load of 16 bytes that the caller has checked to be there.
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}

[[gnu::target("pclmul,sse4.1")]] inline __m128i fold(__m128i a, __m128i k, __m128i onto) {
  const __m128i low = _mm_clmulepi64_si128(a, k, 0x00);
  const __m128i high = _mm_clmulepi64_si128(a, k, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), onto);
}

// The register after the 16 bytes of `a`: a * x^32 modulo P.
[[gnu::target("pclmul,sse4.1")]] inline std::uint32_t reduce(__m128i a) {
  // 128 bits to 96: low * x^96 + high * x^32. Degrees 95..0 are bits 32..127.
  const __m128i powers =
      _mm_set_epi64x(static_cast<long long>(operand(63)), static_cast<long long>(operand(95)));
  const __m128i high = _mm_slli_si128(_mm_srli_si128(a, 8), 4);
  const __m128i r96 = _mm_xor_si128(_mm_clmulepi64_si128(a, powers, 0x00), high);
  // 96 bits to 64: the top 32 are bits 32..63 of the low half, times x^64.
  const __m128i r64 = _mm_xor_si128(_mm_clmulepi64_si128(r96, powers, 0x10), r96);
  const auto rest = static_cast<std::uint64_t>(_mm_extract_epi64(r64, 1));
  // 64 bits to 32 by Barrett: the quotient is the low half of top * reciprocal.
  const __m128i barrett =
      _mm_set_epi64x(static_cast<long long>(kDivisor), static_cast<long long>(kReciprocal));
  const __m128i top = _mm_cvtsi64_si128(static_cast<long long>(rest & 0xffff'ffff));
  const __m128i product = _mm_clmulepi64_si128(top, barrett, 0x00);
  const __m128i quotient =
      _mm_cvtsi64_si128(_mm_cvtsi128_si64(product) & static_cast<long long>(0xffff'ffff));
  const auto multiple =
      static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_clmulepi64_si128(quotient, barrett, 0x10)));
  return static_cast<std::uint32_t>((rest ^ multiple) >> 32);
}

// pshufb controls: 16 bytes from offset n shift a register up by 16 - n bytes (zeros come in), 16
// bytes from offset 16 + n shift it down by n.
alignas(16) constexpr std::array<std::uint8_t, 48> kShift = [] {
  std::array<std::uint8_t, 48> table{};
  for (std::size_t i = 0; i < table.size(); ++i) {
    table[i] = i >= 16 && i < 32 ? static_cast<std::uint8_t>(i - 16) : 0x80;
  }
  return table;
}();

[[gnu::target("pclmul,sse4.1")]] inline __m128i shift_control(std::size_t offset) {
  // SAFETY: an unaligned load within the 48 bytes, as offset is at most 32.
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(kShift.data() + offset));
}

// From one accumulator and the bytes after it to the register.
[[gnu::target("pclmul,sse4.1")]] inline std::uint32_t finish(__m128i a, const std::byte* at,
                                                             std::size_t left) {
  const __m128i k = constants(fold_by(128));
  for (; left >= 16; left -= 16, at += 16) a = fold(a, k, load(at));
  if (left != 0) {
    // The message ends with a and `left` bytes. Its last 16 bytes are a's tail and those; what is
    // before, the first `left` bytes of a, is folded onto them. Leading zeros change nothing.
    const __m128i end = load(at + left - 16);  // Overlaps what has been read: there is a before.
    const __m128i before = _mm_shuffle_epi8(a, shift_control(left));
    const __m128i a_tail = _mm_shuffle_epi8(a, shift_control(16 + left));
    const __m128i keep = _mm_shuffle_epi8(_mm_set1_epi8(-1), shift_control(left));
    // `keep` covers the last `left` bytes, where the new ones lie; a_tail fills the others.
    a = fold(before, k, _mm_or_si128(a_tail, _mm_and_si128(end, keep)));
  }
  return reduce(a);
}

// Fewer than 16 bytes: behind leading zeros, with the state on the first four of them.
[[gnu::target("pclmul,sse4.1")]] inline std::uint32_t update_short(
    std::uint32_t state, std::span<const std::byte> bytes) {
  if (bytes.size() < 4) return crc32_update_tables(state, bytes);
  alignas(16) std::byte block[16] = {};
  std::byte* start = block + 16 - bytes.size();
  std::memcpy(start, bytes.data(), bytes.size());
  store_le32(start, load_le32(start) ^ state);
  return reduce(load(block));
}

}  // namespace

[[gnu::target("pclmul,sse4.1")]] std::uint32_t crc32_update_pclmul(
    std::uint32_t state, std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  if (left < 16) return update_short(state, bytes);
  __m128i a0 = _mm_xor_si128(load(at), _mm_cvtsi32_si128(static_cast<int>(state)));
  if (left < 64) return finish(a0, at + 16, left - 16);

  __m128i a1 = load(at + 16);
  __m128i a2 = load(at + 32);
  __m128i a3 = load(at + 48);
  const __m128i k = constants(fold_by(512));
  for (at += 64, left -= 64; left >= 64; at += 64, left -= 64) {
    a0 = fold(a0, k, load(at));
    a1 = fold(a1, k, load(at + 16));
    a2 = fold(a2, k, load(at + 32));
    a3 = fold(a3, k, load(at + 48));
  }
  a3 = fold(a0, constants(fold_by(384)), a3);
  a3 = fold(a1, constants(fold_by(256)), a3);
  a3 = fold(a2, constants(fold_by(128)), a3);
  return finish(a3, at, left);
}

namespace {

[[gnu::target("vpclmulqdq,avx2,pclmul")]] inline __m256i load256(const std::byte* at) {
  // SAFETY: an unaligned load of 32 bytes that the caller has checked to be there.
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}

[[gnu::target("vpclmulqdq,avx2,pclmul")]] inline __m256i fold256(__m256i a, __m256i k,
                                                                 __m256i onto) {
  const __m256i low = _mm256_clmulepi64_epi128(a, k, 0x00);
  const __m256i high = _mm256_clmulepi64_epi128(a, k, 0x11);
  return _mm256_xor_si256(_mm256_xor_si256(low, high), onto);
}

[[gnu::target("vpclmulqdq,avx2,pclmul")]] inline __m256i constants256(FoldConstants k) {
  return _mm256_broadcastsi128_si256(constants(k));
}

}  // namespace

[[gnu::target("vpclmulqdq,avx2,pclmul")]] std::uint32_t crc32_update_vpclmul256(
    std::uint32_t state, std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  if (left < 256) return crc32_update_pclmul(state, bytes);

  const __m256i first = _mm256_castsi128_si256(_mm_cvtsi32_si128(static_cast<int>(state)));
  const __m256i state256 = _mm256_inserti128_si256(first, _mm_setzero_si128(), 1);
  __m256i a0 = _mm256_xor_si256(load256(at), state256);
  __m256i a1 = load256(at + 32);
  __m256i a2 = load256(at + 64);
  __m256i a3 = load256(at + 96);
  const __m256i k = constants256(fold_by(1024));
  for (at += 128, left -= 128; left >= 128; at += 128, left -= 128) {
    a0 = fold256(a0, k, load256(at));
    a1 = fold256(a1, k, load256(at + 32));
    a2 = fold256(a2, k, load256(at + 64));
    a3 = fold256(a3, k, load256(at + 96));
  }
  a3 = fold256(a0, constants256(fold_by(768)), a3);
  a3 = fold256(a1, constants256(fold_by(512)), a3);
  a3 = fold256(a2, constants256(fold_by(256)), a3);
  const __m128i a =
      fold(_mm256_castsi256_si128(a3), constants(fold_by(128)), _mm256_extracti128_si256(a3, 1));
  return finish(a, at, left);
}

namespace {

[[gnu::target("vpclmulqdq,avx512f,avx512bw,avx512vl,avx2,pclmul")]] inline __m512i load512(
    const std::byte* at) {
  return _mm512_loadu_si512(at);
}

[[gnu::target("vpclmulqdq,avx512f,avx512bw,avx512vl,avx2,pclmul")]] inline __m512i fold512(
    __m512i a, __m512i k, __m512i onto) {
  const __m512i low = _mm512_clmulepi64_epi128(a, k, 0x00);
  const __m512i high = _mm512_clmulepi64_epi128(a, k, 0x11);
  return _mm512_ternarylogic_epi64(low, high, onto, 0x96);  // The truth table of xor.
}

[[gnu::target("vpclmulqdq,avx512f,avx512bw,avx512vl,avx2,pclmul")]] inline __m512i constants512(
    FoldConstants k) {
  const auto low = static_cast<long long>(k.low);
  const auto high = static_cast<long long>(k.high);
  return _mm512_set4_epi64(high, low, high, low);
}

// The masked form, as GCC 12 warns about the undefined operand inside the plain one.
template <int kIndex>
[[gnu::target("vpclmulqdq,avx512f,avx512bw,avx512vl,avx2,pclmul")]] inline __m128i lane(__m512i a) {
  return _mm512_maskz_extracti32x4_epi32(0xf, a, kIndex);
}

}  // namespace

[[gnu::target("vpclmulqdq,avx512f,avx512bw,avx512vl,avx2,pclmul")]] std::uint32_t
crc32_update_vpclmul512(std::uint32_t state, std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  if (left < 256) return crc32_update_pclmul(state, bytes);

  const __m512i state512 = _mm512_zextsi128_si512(_mm_cvtsi32_si128(static_cast<int>(state)));
  __m512i a0 = _mm512_xor_si512(load512(at), state512);
  __m512i a1 = load512(at + 64);
  __m512i a2 = load512(at + 128);
  __m512i a3 = load512(at + 192);
  const __m512i k = constants512(fold_by(2048));
  for (at += 256, left -= 256; left >= 256; at += 256, left -= 256) {
    a0 = fold512(a0, k, load512(at));
    a1 = fold512(a1, k, load512(at + 64));
    a2 = fold512(a2, k, load512(at + 128));
    a3 = fold512(a3, k, load512(at + 192));
  }
  a3 = fold512(a0, constants512(fold_by(1536)), a3);
  a3 = fold512(a1, constants512(fold_by(1024)), a3);
  const __m512i k512 = constants512(fold_by(512));
  a3 = fold512(a2, k512, a3);
  for (; left >= 64; at += 64, left -= 64) a3 = fold512(a3, k512, load512(at));

  __m128i a = lane<3>(a3);
  a = fold(lane<0>(a3), constants(fold_by(384)), a);
  a = fold(lane<1>(a3), constants(fold_by(256)), a);
  a = fold(lane<2>(a3), constants(fold_by(128)), a);
  return finish(a, at, left);
}

bool cpu_has_pclmul() {
  return __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
}

bool cpu_has_vpclmul256() {
  return cpu_has_pclmul() && __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("avx2");
}

bool cpu_has_vpclmul512() {
  return cpu_has_vpclmul256() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}

}  // namespace isthmus::wire

#endif  // __x86_64__
