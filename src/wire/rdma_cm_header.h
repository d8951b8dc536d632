// What rdma_cm adds to the communication manager: service ids made of port space and port, and a
// 36-byte header before the program's own private data that carries IP addresses and source port.
//
//     0  version, 4 bits major and 4 bits minor, 0      4  source address, 16 bytes
//     1  IP version, 4 bits, and 4 reserved bits       20  destination address, 16 bytes
//     2  source port                                   36  the program's private data
//
// An IPv4 address takes the last four bytes of its field.
// Spec: InfiniBand Architecture vol. 1, annex A11 (RDMA IP CM service).
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>

#include "wire/decode_error.h"
#include "wire/ip.h"

namespace isthmus::wire {

inline constexpr std::size_t kRdmaCmHeaderBytes = 36;
// What is left to the program in a REQ's 92 and a SIDR_REQ's 216 bytes.
inline constexpr std::size_t kRdmaCmReqUserBytes = 92 - kRdmaCmHeaderBytes;
inline constexpr std::size_t kRdmaCmSidrReqUserBytes = 216 - kRdmaCmHeaderBytes;
static_assert(kRdmaCmReqUserBytes == 56 && kRdmaCmSidrReqUserBytes == 180);

// The values of enum rdma_port_space.
enum class PortSpace : std::uint16_t {
  kIpoib = 0x0002,
  kTcp = 0x0106,
  kUdp = 0x0111,
  kIb = 0x013f,
};

// 0x0000000001060000 | port for kTcp.
constexpr std::uint64_t rdma_cm_service_id(PortSpace space, std::uint16_t port) {
  return std::uint64_t{static_cast<std::uint16_t>(space)} << 16 | port;
}

struct RdmaCmService {
  PortSpace space;
  std::uint16_t port;
  friend bool operator==(const RdmaCmService&, const RdmaCmService&) = default;
};

// Nothing for a service id that is not rdma_cm's.
constexpr std::optional<RdmaCmService> parse_rdma_cm_service_id(std::uint64_t service_id) {
  const auto port = static_cast<std::uint16_t>(service_id);
  switch (service_id >> 16) {
    case static_cast<std::uint64_t>(PortSpace::kIpoib):
    case static_cast<std::uint64_t>(PortSpace::kTcp):
    case static_cast<std::uint64_t>(PortSpace::kUdp):
    case static_cast<std::uint64_t>(PortSpace::kIb):
      return RdmaCmService{static_cast<PortSpace>(service_id >> 16), port};
    default:
      return std::nullopt;
  }
}

struct RdmaCmHeader {
  std::uint16_t source_port = 0;
  IpAddress source;
  IpAddress destination;
  friend bool operator==(const RdmaCmHeader&, const RdmaCmHeader&) = default;
};

// `out` has room for kRdmaCmHeaderBytes. The IP version is that of `destination`.
std::size_t encode(const RdmaCmHeader& header, std::byte* out);

std::expected<RdmaCmHeader, DecodeError> decode_rdma_cm_header(
    std::span<const std::byte> private_data);

}  // namespace isthmus::wire
