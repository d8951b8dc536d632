// Whatever a peer's private data, introductions and message headers say: the decoders read no byte
// outside of them, and what they accept encodes back to the bytes they read.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>

#include "rdmacm/datagram_wire.h"
#include "rdmacm/stream_wire.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

bool same(std::span<const std::byte> a, std::span<const std::byte> b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace isthmus::rdmacm;
  const std::span bytes = std::as_bytes(std::span{data, size});
  if (const auto offer = decode_connect_data(bytes)) {
    const auto again = encode(*offer);
    require(same(std::span{again}.subspan(8), bytes.subspan(8, again.size() - 8)));
  }
  if (const auto found = decode_introduction(bytes)) {
    require(found->header_bytes <= size);
    const auto again = encode_introduction(found->introduction);
    require(again.count == found->header_bytes);
    require(same(again.span().subspan(12), bytes.subspan(12, again.count - 12)));
  }
  if (const auto found = decode_source(bytes)) {
    require(found->header_bytes <= size);
    const auto again = encode_source(found->source);
    require(again.count == found->header_bytes);
  }
  return 0;
}
