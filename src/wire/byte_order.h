// Integers at unaligned places of a byte buffer, big-endian (the network's order) or little-endian
// (pcapng's, and that of the stored ICRC).
//
// The caller has checked that the bytes are there; these functions check nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace isthmus::wire {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the swaps below assume it");

inline std::uint8_t load_u8(const std::byte* from) { return std::to_integer<std::uint8_t>(*from); }
inline void store_u8(std::byte* to, std::uint8_t value) { *to = std::byte{value}; }

inline std::uint16_t load_le16(const std::byte* from) {
  std::uint16_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

inline std::uint32_t load_le32(const std::byte* from) {
  std::uint32_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

inline std::uint64_t load_le64(const std::byte* from) {
  std::uint64_t value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}

inline void store_le16(std::byte* to, std::uint16_t value) { std::memcpy(to, &value, 2); }
inline void store_le32(std::byte* to, std::uint32_t value) { std::memcpy(to, &value, 4); }
inline void store_le64(std::byte* to, std::uint64_t value) { std::memcpy(to, &value, 8); }

inline std::uint16_t load_be16(const std::byte* from) { return __builtin_bswap16(load_le16(from)); }
inline std::uint32_t load_be32(const std::byte* from) { return __builtin_bswap32(load_le32(from)); }
inline std::uint64_t load_be64(const std::byte* from) { return __builtin_bswap64(load_le64(from)); }

inline void store_be16(std::byte* to, std::uint16_t value) {
  store_le16(to, __builtin_bswap16(value));
}
inline void store_be32(std::byte* to, std::uint32_t value) {
  store_le32(to, __builtin_bswap32(value));
}
inline void store_be64(std::byte* to, std::uint64_t value) {
  store_le64(to, __builtin_bswap64(value));
}

// QP numbers, PSNs and MSNs have 24 bits.
inline std::uint32_t load_be24(const std::byte* from) {
  return (std::uint32_t{load_be16(from)} << 8) | load_u8(from + 2);
}
inline void store_be24(std::byte* to, std::uint32_t value) {
  store_be16(to, static_cast<std::uint16_t>(value >> 8));
  store_u8(to + 2, static_cast<std::uint8_t>(value));
}

}  // namespace isthmus::wire
