// pcap files, and as RoCE frames what lies in them: no read outside the file, and every frame that
// decodes encodes to the same headers, save for the bytes that no field covers.
#include <algorithm>
#include <array>
#include <cstdlib>

#include "wire/pcap.h"
#include "wire/roce_frame.h"

namespace {

using namespace isthmus::wire;

void check_frame(std::span<const std::byte> data) {
  const auto frame = decode_roce_frame(data);
  if (!frame) return;
  std::array<std::byte, kMaxRoceFrameHeaderBytes> headers;
  const std::size_t bytes = encode_roce_frame_headers(*frame, headers.data());
  if (frame->udp_payload.data() != data.data() + bytes) abort();
  const std::span<const std::byte> payload = frame->udp_payload;
  if (payload.data() + payload.size() > data.data() + data.size()) abort();
  if (!std::ranges::equal(std::span(headers).first(kEthernetBytes), data.first(kEthernetBytes))) {
    abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> input = std::as_bytes(std::span(data, size));
  check_frame(input);
  auto reader = PcapReader::create(input);
  if (!reader) return 0;
  for (auto packet = reader->next(); packet && *packet; packet = reader->next()) {
    check_frame((*packet)->data);
  }
  return 0;
}
