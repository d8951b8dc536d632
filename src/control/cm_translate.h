// The words of the protocol with programs (attach/cm_protocol.h) from and to those of the core.
#pragma once

#include <cstddef>
#include <span>

#include "attach/cm_protocol.h"
#include "cm/manager.h"

namespace isthmus::control {

// kInvalid: family 0, or AF_IB with a GID that is no address we can use.
Result<cm::SocketAddress> core_address(const attach::CmAddress& address);
cm::ConnectionParameters core_parameters(const attach::CmConnectionParameters& parameters);
std::span<const std::byte> core_private_data(const attach::CmPrivateData& data);

attach::CmRoute route_of(const cm::Id& id, std::uint64_t node_guid,
                         std::uint8_t packet_life_time_code);
attach::CmQpAttributesReply attributes_reply(const cm::QpAttributes& attributes,
                                             std::uint32_t qp_state);
// Everything but cookies and route.
attach::CmEvent event_message(const cm::Event& event);

}  // namespace isthmus::control
