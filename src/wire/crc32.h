// The implementations of CRC-32, all of the form of crc32_update in icrc.h.
//
// The folding ones may only be called where their processor features exist; crc32_update chooses.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace isthmus::wire {

// Slice-by-8: eight table look-ups for eight bytes. Runs everywhere.
std::uint32_t crc32_update_tables(std::uint32_t state, std::span<const std::byte> bytes);

#if defined(__x86_64__)
// Carry-less multiplication, 16 bytes at a time (PCLMULQDQ, SSE4.1).
std::uint32_t crc32_update_pclmul(std::uint32_t state, std::span<const std::byte> bytes);
// 32 bytes at a time (VPCLMULQDQ, AVX2).
std::uint32_t crc32_update_vpclmul256(std::uint32_t state, std::span<const std::byte> bytes);
// 64 bytes at a time (VPCLMULQDQ, AVX-512 F, BW, VL).
std::uint32_t crc32_update_vpclmul512(std::uint32_t state, std::span<const std::byte> bytes);

bool cpu_has_pclmul();
bool cpu_has_vpclmul256();
bool cpu_has_vpclmul512();
#endif

}  // namespace isthmus::wire
