// A connection manager's MAD in its RoCEv2 packet, there and back.
//
// The packet is a UD SEND Only from queue pair 1 to queue pair 1 with the well-known Q_Key.
//
// Input: parse() takes whatever arrived at the RoCE port for queue pair 1.
// Spec: InfiniBand Architecture vol. 1, 13.6.1; annex A17.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "wire/icrc.h"
#include "wire/ip.h"
#include "wire/mad.h"
#include "wire/opcode.h"

namespace isthmus::control {

inline constexpr std::size_t kCmPacketBytes =
    wire::kBthBytes + wire::kDethBytes + wire::kMadBytes + wire::kIcrcBytes;
static_assert(kCmPacketBytes == 280);

struct CmPacketVerdict {
  enum class Kind : std::uint8_t {
    kMad,        // `mad` is in the packet's bytes.
    kNotForUs,   // Of another queue pair than 1.
    kMalformed,  // Not one UD packet with one MAD, or another Q_Key.
    kBadIcrc,
  };
  Kind kind = Kind::kMalformed;
  std::span<const std::byte> mad;
};

CmPacketVerdict parse_cm_packet(const wire::IcrcFlow& flow, std::span<const std::byte> udp_payload,
                                wire::IcrcVerifier& verifier);

// The UDP payload; sent from port 4791 by a socket whose packets have IP ID 0.
void make_cm_packet(const wire::IpAddress& source, const wire::IpAddress& destination,
                    std::uint32_t psn, std::span<const std::byte, wire::kMadBytes> mad,
                    std::span<std::byte, kCmPacketBytes> out);

}  // namespace isthmus::control
