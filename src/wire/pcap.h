// Reads classic pcap files, the format of tcpdump -w, from memory.
//
// Input: any bytes. Both byte orders, microseconds and nanoseconds.
// Spec: draft-ietf-opsawg-pcap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>

#include "wire/decode_error.h"

namespace isthmus::wire {

inline constexpr std::uint32_t kLinkTypeEthernet = 1;
inline constexpr std::uint32_t kLinkTypeRawIp = 101;

struct PcapPacket {
  std::uint64_t timestamp_ns = 0;    // Since 1970.
  std::uint32_t original_bytes = 0;  // On the wire; more than data has if the capture cut it.
  std::span<const std::byte> data;   // Borrowed from the file.
};

class PcapReader {
 public:
  // `file` is borrowed for the life of the reader.
  static std::expected<PcapReader, DecodeError> create(std::span<const std::byte> file);

  // The next packet; nothing at the end of the file; an error if it ends within a packet.
  std::expected<std::optional<PcapPacket>, DecodeError> next();

  std::uint32_t link_type() const { return link_type_; }

 private:
  enum class Order { kLittle, kBig };
  enum class Resolution { kMicroseconds, kNanoseconds };

  PcapReader() = default;
  std::uint32_t load32(std::size_t offset) const;

  std::span<const std::byte> rest_;
  Order order_ = Order::kLittle;
  Resolution resolution_ = Resolution::kMicroseconds;
  std::uint32_t link_type_ = 0;
};

}  // namespace isthmus::wire
