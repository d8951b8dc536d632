// Addresses as text, and the headers that hold them: what is read can be written and read again.
#include <cstdlib>
#include <string_view>

#include "wire/grh.h"
#include "wire/ip.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace isthmus::wire;
  const std::span<const std::byte> input = std::as_bytes(std::span(data, size));

  // SAFETY: bytes viewed as characters, within the same bounds.
  const auto address = IpAddress::parse({reinterpret_cast<const char*>(data), size});
  if (address && IpAddress::parse(address->to_string()) != address) abort();

  if (const auto ip = decode_ipv4(input); ip && ip->total_bytes > size) abort();
  if (const auto ip = decode_ipv6(input); ip && ip->payload_bytes > size) abort();
  if (const auto udp = decode_udp(input); udp && udp->total_bytes > size) abort();
  if (size >= kGrhBytes) {
    const auto grh = decode_grh(input.first<kGrhBytes>());
    if (!grh || grh->source.is_v4() != grh->destination.is_v4()) return 0;
    std::array<std::byte, kGrhBytes> again;
    encode(*grh, again);
    const auto same = decode_grh(again);
    if (!same || same->source != grh->source || same->destination != grh->destination) abort();
  }
  return 0;
}
