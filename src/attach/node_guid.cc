#include "attach/node_guid.h"

#include <algorithm>

#include "wire/byte_order.h"

namespace isthmus::attach {
namespace {

constexpr std::uint64_t kLocallyAdministered = 0x02;
constexpr std::uint64_t kEui64Filler = 0xfffe;
constexpr std::size_t kLastFourBytes = 12;  // Of 16: all of an IPv4 address.

}  // namespace

std::uint64_t node_guid_of(std::span<const GuidSource> sources) {
  const auto with_mac = std::ranges::find_if(
      sources, [](const GuidSource& source) { return source.mac != wire::MacAddress{}; });
  if (with_mac != sources.end()) {
    std::uint64_t mac = 0;
    for (const std::byte byte : with_mac->mac) mac = mac << 8 | std::to_integer<unsigned>(byte);
    const std::uint64_t high = mac >> 24 ^ kLocallyAdministered << 16;
    return high << 40 | kEui64Filler << 24 | (mac & 0xff'ffff);
  }
  std::uint64_t guid = kLocallyAdministered << 56 | kEui64Filler << 32;
  if (!sources.empty()) {
    guid |= wire::load_be32(sources.front().address.bytes().data() + kLastFourBytes);
  }
  return guid;
}

}  // namespace isthmus::attach
