// RoCE datagrams: whatever decodes must encode to the same bytes again, padding aside.
#include <algorithm>
#include <array>
#include <cstdlib>

#include "wire/roce_packet.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace isthmus::wire;
  const std::span<const std::byte> input = std::as_bytes(std::span(data, size));
  const auto packet = decode_roce(input);
  if (!packet) return 0;

  std::array<std::byte, kMaxHeaderBytes> headers;
  const std::size_t header_bytes = encode_headers(*packet, headers.data());
  if (!std::ranges::equal(std::span(headers).first(header_bytes), input.first(header_bytes)))
    abort();
  const std::size_t end = header_bytes + packet->payload.size() + packet->bth.pad_count;
  if (packet->payload.data() != input.data() + header_bytes) abort();
  if (end + kIcrcBytes != size) abort();
  return 0;
}
