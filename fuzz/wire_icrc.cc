// The ICRC: any bytes may arrive; what was sealed is accepted with its IP ID; all implementations
// of the CRC agree.
#include <array>
#include <cstdlib>
#include <vector>

#include "wire/byte_order.h"
#include "wire/icrc.h"
#include "wire/opcode.h"

namespace {

using namespace isthmus::wire;

constexpr std::size_t kFlowBytes = 1 + 16 + 16 + 2 + 2 + 2;

// The first bytes choose family, addresses, ports and IP ID.
IcrcFlow flow_of(const std::byte* at) {
  const bool v4 = load_u8(at) % 2 == 0;
  IcrcFlow flow{.source_port = load_be16(at + 33), .destination_port = load_be16(at + 35)};
  if (v4) {
    flow.source = IpAddress::from_v4(load_be32(at + 1));
    flow.destination = IpAddress::from_v4(load_be32(at + 17));
  } else {
    flow.source = IpAddress::from_bytes(std::span<const std::byte, 16>(at + 1, 16));
    flow.destination = IpAddress::from_bytes(std::span<const std::byte, 16>(at + 17, 16));
  }
  return flow;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < kFlowBytes) return 0;
  const std::span<const std::byte> input = std::as_bytes(std::span(data, size));
  const IcrcFlow flow = flow_of(input.data());
  const std::uint16_t ip_id = load_be16(input.data() + 37);
  const std::span<const std::byte> payload = input.subspan(kFlowBytes);

  IcrcVerifier verifier;
  const IcrcVerdict arrived = verifier.verify(flow, payload);
  const std::uint32_t expected = crc32_update(kCrc32Start, payload);
  for (const Crc32Implementation& implementation : crc32_implementations()) {
    if (implementation.supported && implementation.update(kCrc32Start, payload) != expected) {
      abort();
    }
  }
  if (flow.source.is_v4() != flow.destination.is_v4()) {
    if (arrived.accepted()) abort();
    return 0;
  }
  if (payload.size() < kBthBytes || payload.size() + kIcrcBytes > kMaxUdpPayloadBytes) return 0;

  std::vector<std::byte> sealed(payload.begin(), payload.end());
  sealed.resize(payload.size() + kIcrcBytes);
  store_le32(sealed.data() + payload.size(), icrc(flow, payload, ip_id));
  const IcrcVerdict verdict = verifier.verify(flow, sealed);
  if (!verdict.accepted() || !verdict.dont_fragment) abort();
  if (flow.source.is_v4() && verdict.ip_id != ip_id) abort();
  if (!flow.source.is_v4() && verdict.match != IcrcMatch::kExact) abort();
  return 0;
}
