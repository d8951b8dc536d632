#include "wire/pcap.h"

#include "wire/byte_order.h"

namespace isthmus::wire {
namespace {

constexpr std::size_t kFileHeaderBytes = 24;
constexpr std::size_t kLinkTypeOffset = 20;
constexpr std::size_t kPacketHeaderBytes = 16;
constexpr std::uint32_t kMagicMicroseconds = 0xa1b2'c3d4;
constexpr std::uint32_t kMagicNanoseconds = 0xa1b2'3c4d;
// The upper bits of the link type say whether frames end with a check sequence.
constexpr std::uint32_t kLinkTypeMask = 0xffff;

}  // namespace

std::expected<PcapReader, DecodeError> PcapReader::create(std::span<const std::byte> file) {
  if (file.size() < kFileHeaderBytes) return std::unexpected(DecodeError::kTooShort);
  PcapReader reader;
  reader.rest_ = file;
  for (const Order order : {Order::kLittle, Order::kBig}) {
    reader.order_ = order;
    const std::uint32_t magic = reader.load32(0);
    if (magic != kMagicMicroseconds && magic != kMagicNanoseconds) continue;
    reader.resolution_ =
        magic == kMagicNanoseconds ? Resolution::kNanoseconds : Resolution::kMicroseconds;
    reader.link_type_ = reader.load32(kLinkTypeOffset) & kLinkTypeMask;
    reader.rest_ = file.subspan(kFileHeaderBytes);
    return reader;
  }
  return std::unexpected(DecodeError::kBadMagic);
}

std::expected<std::optional<PcapPacket>, DecodeError> PcapReader::next() {
  if (rest_.empty()) return std::nullopt;
  if (rest_.size() < kPacketHeaderBytes) return std::unexpected(DecodeError::kTooShort);
  const std::uint64_t seconds = load32(0);
  const std::uint64_t fraction = load32(4);
  const std::uint32_t captured_bytes = load32(8);
  PcapPacket packet;
  packet.timestamp_ns =
      seconds * 1'000'000'000 + fraction * (resolution_ == Resolution::kMicroseconds ? 1000 : 1);
  packet.original_bytes = load32(12);
  rest_ = rest_.subspan(kPacketHeaderBytes);
  if (rest_.size() < captured_bytes) return std::unexpected(DecodeError::kTooShort);
  packet.data = rest_.first(captured_bytes);
  rest_ = rest_.subspan(captured_bytes);
  return packet;
}

std::uint32_t PcapReader::load32(std::size_t offset) const {
  const std::byte* at = rest_.data() + offset;
  return order_ == Order::kLittle ? load_le32(at) : load_be32(at);
}

}  // namespace isthmus::wire
