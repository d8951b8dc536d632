// CRC-32 by tables, and the choice of an implementation.
#include "wire/crc32.h"

#include <array>
#include <atomic>

#include "wire/byte_order.h"
#include "wire/crc32_polynomial.h"
#include "wire/icrc.h"

namespace isthmus::wire {
namespace {

// kSlices[k][b] is the register after byte b and k zero bytes.
constexpr auto kSlices = [] {
  std::array<std::array<std::uint32_t, 256>, 8> table{};
  for (std::uint32_t b = 0; b < 256; ++b) {
    std::uint32_t state = b;
    for (int bit = 0; bit < 8; ++bit) state = crc32_multiply_by_x(state);
    table[0][b] = state;
  }
  for (std::size_t k = 1; k < 8; ++k) {
    for (std::size_t b = 0; b < 256; ++b) {
      const std::uint32_t before = table[k - 1][b];
      table[k][b] = (before >> 8) ^ table[0][before & 0xff];
    }
  }
  return table;
}();

}  // namespace

std::uint32_t crc32_update_tables(std::uint32_t state, std::span<const std::byte> bytes) {
  const std::byte* at = bytes.data();
  std::size_t left = bytes.size();
  for (; left >= 8; left -= 8, at += 8) {
    const std::uint32_t low = load_le32(at) ^ state;
    const std::uint32_t high = load_le32(at + 4);
    state = kSlices[7][low & 0xff] ^ kSlices[6][(low >> 8) & 0xff] ^
            kSlices[5][(low >> 16) & 0xff] ^ kSlices[4][low >> 24] ^ kSlices[3][high & 0xff] ^
            kSlices[2][(high >> 8) & 0xff] ^ kSlices[1][(high >> 16) & 0xff] ^
            kSlices[0][high >> 24];
  }
  for (; left != 0; --left, ++at) {
    state = (state >> 8) ^ kSlices[0][(state ^ load_u8(at)) & 0xff];
  }
  return state;
}

namespace {

using UpdateFunction = std::uint32_t (*)(std::uint32_t, std::span<const std::byte>);

std::uint32_t choose_and_update(std::uint32_t state, std::span<const std::byte> bytes);

// Replaced on the first call. Relaxed: every thread that still finds the first value chooses the
// same replacement, and nothing else is published with it.
constinit std::atomic<UpdateFunction> chosen_update{&choose_and_update};

std::uint32_t choose_and_update(std::uint32_t state, std::span<const std::byte> bytes) {
  UpdateFunction best = nullptr;
  for (const Crc32Implementation& candidate : crc32_implementations()) {
    if (candidate.supported) best = candidate.update;
  }
  chosen_update.store(best, std::memory_order_relaxed);
  return best(state, bytes);
}

}  // namespace

std::uint32_t crc32_update(std::uint32_t state, std::span<const std::byte> bytes) {
  return chosen_update.load(std::memory_order_relaxed)(state, bytes);
}

// Slowest first; the tables are always supported.
std::array<Crc32Implementation, 4> crc32_implementations() {
#if defined(__x86_64__)
  return {{{"tables", crc32_update_tables, true},
           {"pclmul", crc32_update_pclmul, cpu_has_pclmul()},
           {"vpclmul256", crc32_update_vpclmul256, cpu_has_vpclmul256()},
           {"vpclmul512", crc32_update_vpclmul512, cpu_has_vpclmul512()}}};
#else
  return {{{"tables", crc32_update_tables, true},
           {"pclmul", nullptr, false},
           {"vpclmul256", nullptr, false},
           {"vpclmul512", nullptr, false}}};
#endif
}

}  // namespace isthmus::wire
