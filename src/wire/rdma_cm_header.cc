#include "wire/rdma_cm_header.h"

#include <algorithm>
#include <cstring>

#include "wire/byte_order.h"

namespace isthmus::wire {
namespace {

constexpr std::size_t kSourceOffset = 4;
constexpr std::size_t kDestinationOffset = 20;
constexpr std::size_t kV4InField = 12;

void store_address(const IpAddress& address, std::byte* field) {
  const std::span<const std::byte> bytes = address.header_bytes();
  std::memset(field, 0, 16);
  std::ranges::copy(bytes, field + 16 - bytes.size());
}

IpAddress load_address(std::uint8_t ip_version, const std::byte* field) {
  if (ip_version == 4) {
    return IpAddress::from_v4(load_be32(field + kV4InField));
  }
  return IpAddress::from_bytes(std::span<const std::byte, 16>(field, 16));
}

}  // namespace

std::size_t encode(const RdmaCmHeader& header, std::byte* out) {
  store_u8(out, 0);
  store_u8(out + 1, header.destination.is_v4() ? 0x40 : 0x60);
  store_be16(out + 2, header.source_port);
  store_address(header.source, out + kSourceOffset);
  store_address(header.destination, out + kDestinationOffset);
  return kRdmaCmHeaderBytes;
}

std::expected<RdmaCmHeader, DecodeError> decode_rdma_cm_header(
    std::span<const std::byte> private_data) {
  if (private_data.size() < kRdmaCmHeaderBytes) return std::unexpected(DecodeError::kTooShort);
  const std::byte* at = private_data.data();
  const std::uint8_t ip_version = load_u8(at + 1) >> 4;
  if (load_u8(at) != 0 || (ip_version != 4 && ip_version != 6)) {
    return std::unexpected(DecodeError::kBadVersion);
  }
  return RdmaCmHeader{.source_port = load_be16(at + 2),
                      .source = load_address(ip_version, at + kSourceOffset),
                      .destination = load_address(ip_version, at + kDestinationOffset)};
}

}  // namespace isthmus::wire
