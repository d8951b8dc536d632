#include "wire/mad.h"

#include "wire/byte_order.h"

namespace isthmus::wire {

std::size_t encode(const MadHeader& header, std::byte* out) {
  store_u8(out, header.base_version);
  store_u8(out + 1, header.management_class);
  store_u8(out + 2, header.class_version);
  store_u8(out + 3, header.method);
  store_be16(out + 4, header.status);
  store_be16(out + 6, header.class_specific);
  store_be64(out + 8, header.transaction_id);
  store_be16(out + 16, header.attribute_id);
  store_be16(out + 18, header.reserved);
  store_be32(out + 20, header.attribute_modifier);
  return kMadHeaderBytes;
}

std::expected<MadHeader, DecodeError> decode_mad_header(std::span<const std::byte> mad) {
  if (mad.size() < kMadBytes) return std::unexpected(DecodeError::kTooShort);
  if (mad.size() > kMadBytes) return std::unexpected(DecodeError::kBadLength);
  const std::byte* at = mad.data();
  const MadHeader header{.base_version = load_u8(at),
                         .management_class = load_u8(at + 1),
                         .class_version = load_u8(at + 2),
                         .method = load_u8(at + 3),
                         .status = load_be16(at + 4),
                         .class_specific = load_be16(at + 6),
                         .transaction_id = load_be64(at + 8),
                         .attribute_id = load_be16(at + 16),
                         .reserved = load_be16(at + 18),
                         .attribute_modifier = load_be32(at + 20)};
  if (header.base_version != kMadBaseVersion) return std::unexpected(DecodeError::kBadVersion);
  return header;
}

}  // namespace isthmus::wire
