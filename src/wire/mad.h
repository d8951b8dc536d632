// Management datagrams: 256 bytes with a header of 24, sent as UD SEND Only to queue pair 1.
//
// Spec: InfiniBand Architecture vol. 1, 13.4.2 to 13.4.3.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>

#include "wire/decode_error.h"

namespace isthmus::wire {

inline constexpr std::size_t kMadBytes = 256;
inline constexpr std::size_t kMadHeaderBytes = 24;

// Queue pair 1, the general service interface, and the Q_Key its packets carry.
inline constexpr std::uint32_t kGsiQpn = 1;
inline constexpr std::uint32_t kGsiQkey = 0x8001'0000;

inline constexpr std::uint8_t kMadBaseVersion = 1;
inline constexpr std::uint8_t kMadClassCm = 0x07;
inline constexpr std::uint8_t kMadClassVersionCm = 2;
inline constexpr std::uint8_t kMadMethodSend = 0x03;

struct MadHeader {
  std::uint8_t base_version = kMadBaseVersion;
  std::uint8_t management_class = kMadClassCm;
  std::uint8_t class_version = kMadClassVersionCm;
  std::uint8_t method = kMadMethodSend;
  std::uint16_t status = 0;
  std::uint16_t class_specific = 0;
  std::uint64_t transaction_id = 0;
  std::uint16_t attribute_id = 0;
  std::uint16_t reserved = 0;
  std::uint32_t attribute_modifier = 0;
  friend bool operator==(const MadHeader&, const MadHeader&) = default;
};

std::size_t encode(const MadHeader& header, std::byte* out);

// Needs the whole MAD, as all that send or receive one have it whole.
std::expected<MadHeader, DecodeError> decode_mad_header(std::span<const std::byte> mad);

}  // namespace isthmus::wire
