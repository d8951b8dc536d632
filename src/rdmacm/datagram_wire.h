// The two headers of datagram rsockets.
//
// Primer: an address of a datagram rsocket is that of a UDP socket. The first datagrams to a peer
// go through that socket, each behind an introduction that names the sender's UD QP; the peer
// answers with one of its own. From then on datagrams go from QP to QP, behind a small header with
// the address they come from.
//
// Spec: docs/rsocket of rdma-core and its source where the two differ (the QPN is in the low 24
// bits); interoperates with its librdmacm.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "attach/cm_protocol.h"

namespace isthmus::rdmacm {

enum class IntroductionKind : std::uint8_t { kData = 0, kControl = 7 };

struct Introduction {
  IntroductionKind kind = IntroductionKind::kData;
  std::uint32_t qpn = 0;
  attach::CmAddress address;  // The sender's; its port is that of the UDP datagram.
};

struct HeaderBytes {
  std::array<std::byte, 28> bytes{};
  std::size_t count = 0;
  std::span<const std::byte> span() const { return std::span{bytes}.first(count); }
};

HeaderBytes encode_introduction(const Introduction& introduction);
// nullopt: not one; somebody else's datagram.
struct DecodedIntroduction {
  Introduction introduction;
  std::size_t header_bytes = 0;
};
std::optional<DecodedIntroduction> decode_introduction(std::span<const std::byte> datagram);

// The header of datagrams between QPs: the sender's address and port.
HeaderBytes encode_source(const attach::CmAddress& source);
struct DecodedSource {
  attach::CmAddress source;
  std::size_t header_bytes = 0;
};
std::optional<DecodedSource> decode_source(std::span<const std::byte> message);

}  // namespace isthmus::rdmacm
