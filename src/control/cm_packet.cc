#include "control/cm_packet.h"

#include "base/assert.h"
#include "wire/byte_order.h"
#include "wire/roce_packet.h"

namespace isthmus::control {

CmPacketVerdict parse_cm_packet(const wire::IcrcFlow& flow, std::span<const std::byte> udp_payload,
                                wire::IcrcVerifier& verifier) {
  using Kind = CmPacketVerdict::Kind;
  const auto packet = wire::decode_roce(udp_payload);
  if (!packet) return {Kind::kMalformed, {}};
  if (packet->bth.dest_qpn != wire::kGsiQpn) return {Kind::kNotForUs, {}};
  if (packet->bth.opcode != wire::Opcode::kUdSendOnly || packet->deth.qkey != wire::kGsiQkey ||
      packet->deth.src_qpn != wire::kGsiQpn || packet->payload.size() != wire::kMadBytes) {
    return {Kind::kMalformed, {}};
  }
  if (!verifier.verify(flow, udp_payload).accepted()) return {Kind::kBadIcrc, {}};
  return {Kind::kMad, packet->payload};
}

void make_cm_packet(const wire::IpAddress& source, const wire::IpAddress& destination,
                    std::uint32_t psn, std::span<const std::byte, wire::kMadBytes> mad,
                    std::span<std::byte, kCmPacketBytes> out) {
  const wire::RocePacket packet{.bth = {.opcode = wire::Opcode::kUdSendOnly,
                                        .dest_qpn = wire::kGsiQpn,
                                        .psn = psn & 0x00ff'ffff},
                                .deth = {.qkey = wire::kGsiQkey, .src_qpn = wire::kGsiQpn},
                                .payload = mad};
  const std::size_t bytes = wire::encode_roce(packet, out.data());
  ISTHMUS_ASSERT(bytes + wire::kIcrcBytes == out.size());
  const wire::IcrcFlow flow{.source = source,
                            .destination = destination,
                            .source_port = wire::kRoceUdpPort,
                            .destination_port = wire::kRoceUdpPort};
  wire::store_le32(out.data() + bytes, wire::icrc(flow, out.first(bytes)));
}

}  // namespace isthmus::control
