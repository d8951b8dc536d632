#include "rdmacm/stream_wire.h"

#include "wire/byte_order.h"

namespace isthmus::rdmacm {
namespace {

constexpr std::uint32_t kLargestPlainCount = 128;
constexpr std::uint32_t kCountStep = 256;
constexpr std::uint32_t kMostTargets = 64;  // Of a peer's list; real ones have 2.

// Offsets of ConnectData.
constexpr std::size_t kVersionAt = 0;
constexpr std::size_t kFlagsAt = 1;
constexpr std::size_t kCreditsAt = 2;
constexpr std::size_t kIomapSizeAt = 7;
constexpr std::size_t kTargetListAt = 8;
constexpr std::size_t kBufferAt = 24;
static_assert(kBufferAt + sizeof(Target) == kConnectDataBytes);

void store(std::byte* to, const Target& target) {
  wire::store_be64(to, target.address);
  wire::store_be32(to + 8, target.key);
  wire::store_be32(to + 12, target.length);
}

Target load(const std::byte* from) {
  return {.address = wire::load_be64(from),
          .key = wire::load_be32(from + 8),
          .length = wire::load_be32(from + 12)};
}

}  // namespace

std::uint8_t iomap_scale_of(std::uint32_t count) {
  if (count <= kLargestPlainCount) return static_cast<std::uint8_t>(count);
  return static_cast<std::uint8_t>(kLargestPlainCount | (count / kCountStep));
}

std::uint32_t iomap_count_of(std::uint8_t scale) {
  if (scale <= kLargestPlainCount) return scale;
  return (scale & (kLargestPlainCount - 1)) * kCountStep;
}

std::array<std::byte, kConnectDataBytes> encode(const ConnectData& data) {
  std::array<std::byte, kConnectDataBytes> bytes{};
  wire::store_u8(&bytes[kVersionAt], kStreamVersion);
  wire::store_u8(&bytes[kFlagsAt], data.flags);
  wire::store_be16(&bytes[kCreditsAt], data.credits);
  wire::store_u8(&bytes[kIomapSizeAt], iomap_scale_of(data.iomap_count));
  store(&bytes[kTargetListAt], data.target_list);
  store(&bytes[kBufferAt], data.buffer);
  return bytes;
}

Result<ConnectData> decode_connect_data(std::span<const std::byte> bytes) {
  if (bytes.size() < kConnectDataBytes) {
    return fail(ErrorCode::kInvalid, "peer is no rsocket: %zu bytes of private data, need %zu",
                bytes.size(), kConnectDataBytes);
  }
  if (wire::load_u8(&bytes[kVersionAt]) != kStreamVersion) {
    return fail(ErrorCode::kUnsupported, "peer speaks version %u of rsockets, we speak %u",
                wire::load_u8(&bytes[kVersionAt]), kStreamVersion);
  }
  ConnectData data;
  data.flags = wire::load_u8(&bytes[kFlagsAt]);
  data.credits = wire::load_be16(&bytes[kCreditsAt]);
  if ((data.flags & kFlagIomap) != 0) {
    data.iomap_count = iomap_count_of(wire::load_u8(&bytes[kIomapSizeAt]));
  }
  data.target_list = load(&bytes[kTargetListAt]);
  data.buffer = load(&bytes[kBufferAt]);
  // With one target the peer could overwrite it while we use it; with none it could never tell.
  if (data.target_list.length < kTargetCount || data.target_list.length > kMostTargets) {
    return fail(ErrorCode::kInvalid, "peer has a list of %u targets, 2 to %u make sense",
                data.target_list.length, kMostTargets);
  }
  return data;
}

}  // namespace isthmus::rdmacm
