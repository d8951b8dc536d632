// Arithmetic with polynomials over GF(2) modulo the CRC-32 polynomial: what the folding constants,
// the tables and the inverse of the ICRC are computed with, mostly by the compiler.
//
// A residue is 32 bits "reflected", as the CRC register holds it: bit 31 is the coefficient of x^0,
// bit 0 that of x^31. Feeding a zero byte to a CRC register multiplies it by x^8.
#pragma once

#include <array>
#include <cstdint>

namespace isthmus::wire {

// x^32 + x^26 + x^23 + x^22 + x^16 + x^12 + x^11 + x^10 + x^8 + x^7 + x^5 + x^4 + x^2 + x + 1,
// without its leading term, reflected.
inline constexpr std::uint32_t kCrc32Polynomial = 0xedb8'8320;

// The polynomial is primitive: the powers of x repeat after 2^32 - 1.
inline constexpr std::uint64_t kCrc32Order = 0xffff'ffff;

constexpr std::uint32_t crc32_multiply_by_x(std::uint32_t a) {
  return (a >> 1) ^ (kCrc32Polynomial & (0u - (a & 1)));
}

constexpr std::uint32_t crc32_multiply(std::uint32_t a, std::uint32_t b) {
  std::uint32_t product = 0;
  for (int exponent = 0; exponent < 32; ++exponent) {
    product ^= b & (0u - ((a >> (31 - exponent)) & 1));
    b = crc32_multiply_by_x(b);
  }
  return product;
}

// x^(2^k) for each k, so that any power takes at most 32 multiplications.
inline constexpr std::array<std::uint32_t, 32> kCrc32Squares = [] {
  std::array<std::uint32_t, 32> table{};
  table[0] = 0x4000'0000;  // x^1
  for (std::size_t k = 1; k < table.size(); ++k)
    table[k] = crc32_multiply(table[k - 1], table[k - 1]);
  return table;
}();

// x^exponent modulo the polynomial.
constexpr std::uint32_t crc32_x_power(std::uint64_t exponent) {
  exponent %= kCrc32Order;
  std::uint32_t result = 0x8000'0000;  // x^0
  for (std::size_t k = 0; exponent != 0; ++k, exponent >>= 1) {
    if (exponent & 1) result = crc32_multiply(result, kCrc32Squares[k]);
  }
  return result;
}

static_assert(crc32_x_power(32) == kCrc32Polynomial, "x^32 is the rest of the polynomial");
static_assert(crc32_multiply(crc32_x_power(1000), crc32_x_power(kCrc32Order - 1000)) ==
              0x8000'0000);

}  // namespace isthmus::wire
