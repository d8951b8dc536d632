#include "control/cm_translate.h"

#include <infiniband/verbs.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace isthmus::control {
namespace {

constexpr std::uint8_t kPortNumber = 1;
constexpr std::uint8_t kHopLimit = 64;
constexpr std::uint64_t kWholeServiceId = ~0ull;

using GidBytes = std::array<std::uint8_t, 16>;

GidBytes gid_of(const wire::IpAddress& ip) {
  GidBytes gid;
  std::memcpy(gid.data(), ip.bytes().data(), gid.size());
  return gid;
}

wire::IpAddress ip_of(const GidBytes& gid) {
  wire::IpAddress::Bytes bytes;
  std::memcpy(bytes.data(), gid.data(), bytes.size());
  return wire::IpAddress{bytes};
}

attach::CmAddress message_address(const cm::SocketAddress& address, wire::PortSpace space) {
  attach::CmAddress message{.port = address.port, .ip = gid_of(address.ip)};
  if (address.infiniband) {
    message.family = attach::kCmFamilyIb;
    message.service_id = wire::rdma_cm_service_id(space, address.port);
    message.service_mask = kWholeServiceId;
  } else {
    message.family = address.family == cm::Family::kV4 ? AF_INET : AF_INET6;
  }
  return message;
}

attach::CmAddressHandle message_handle(const cm::AddressHandle& handle) {
  return {.destination_gid = gid_of(handle.destination),
          .flow_label = handle.flow_label,
          .dlid = handle.dlid,
          .source_gid_index = handle.source_gid_index,
          .hop_limit = handle.hop_limit,
          .traffic_class = handle.traffic_class,
          .is_global = 1,
          .port_num = kPortNumber};
}

bool is_resolved(const cm::Id& id) {
  switch (id.state) {
    case cm::IdState::kRouteResolved:
    case cm::IdState::kConnecting:
    case cm::IdState::kClosed:
      return true;
    default:
      return false;
  }
}

}  // namespace

Result<cm::SocketAddress> core_address(const attach::CmAddress& address) {
  const wire::IpAddress ip = ip_of(address.ip);
  cm::SocketAddress core{.ip = ip, .port = address.port};
  switch (address.family) {
    case AF_INET:
      core.family = cm::Family::kV4;
      return core;
    case AF_INET6:
      // An IPv4 address in the clothes of IPv6 is one of IPv4; "::" is not.
      core.family = ip.is_v4() ? cm::Family::kV4 : cm::Family::kV6;
      return core;
    case attach::kCmFamilyIb: {
      core.family = ip.is_v4() ? cm::Family::kV4 : cm::Family::kV6;
      core.infiniband = true;
      const auto service = wire::parse_rdma_cm_service_id(address.service_id);
      if (service) core.space = service->space;
      core.port = static_cast<std::uint16_t>(address.service_id);
      return core;
    }
    default:
      return fail(ErrorCode::kInvalid, "address of family %u: not one we know", address.family);
  }
}

cm::ConnectionParameters core_parameters(const attach::CmConnectionParameters& parameters) {
  return {.qpn = parameters.qpn,
          .qkey = parameters.qkey,
          .responder_resources = parameters.responder_resources,
          .initiator_depth = parameters.initiator_depth,
          .flow_control = parameters.flow_control,
          .retry_count = parameters.retry_count,
          .rnr_retry_count = parameters.rnr_retry_count,
          .srq = parameters.srq,
          .qp_type = parameters.qp_type};
}

std::span<const std::byte> core_private_data(const attach::CmPrivateData& data) {
  return std::as_bytes(std::span{data.data}).first(data.bytes);
}

attach::CmRoute route_of(const cm::Id& id, std::uint64_t node_guid,
                         std::uint8_t packet_life_time_code) {
  attach::CmRoute route;
  if (id.state == cm::IdState::kIdle) return route;
  route.source = message_address(id.source, id.space);
  if (id.destination_known) {
    route.destination = message_address(id.destination, id.space);
    route.destination_gid = gid_of(id.destination.ip);
  }
  if (id.device) {
    route.source_gid = gid_of(id.device->ip);
    route.node_guid = node_guid;
    route.bound = 1;
    route.port_num = kPortNumber;
    route.gid_index = id.device->gid_index;
    route.mtu = id.device->mtu;
  }
  route.path_count = is_resolved(id) ? 1 : 0;
  route.rate = IBV_RATE_100_GBPS;
  route.packet_life_time = packet_life_time_code;
  route.traffic_class = id.type_of_service;
  route.hop_limit = kHopLimit;
  return route;
}

attach::CmQpAttributesReply attributes_reply(const cm::QpAttributes& attributes,
                                             std::uint32_t qp_state) {
  const cm::ConnectionValues& values = attributes.values;
  return {.mask = attributes.mask,
          .qp_state = qp_state,
          .path_mtu = values.path_mtu,
          .qkey = attributes.qkey,
          .rq_psn = values.rq_psn,
          .sq_psn = values.sq_psn,
          .dest_qpn = values.remote_qpn,
          .access_flags = attributes.access_flags,
          .address_handle = message_handle(attributes.address_handle),
          .port_num = kPortNumber,
          .max_rd_atomic = values.initiator_depth,
          .max_dest_rd_atomic = values.responder_resources,
          .min_rnr_timer = attributes.min_rnr_timer,
          .timeout = values.ack_timeout,
          .retry_count = values.retry_count,
          .rnr_retry = values.rnr_retry_count,
          .local_communication_id = static_cast<std::uint32_t>(attributes.local_id),
          .remote_communication_id = attributes.remote_id};
}

attach::CmEvent event_message(const cm::Event& event) {
  attach::CmEvent message;
  message.type = static_cast<attach::CmEventType>(event.type);
  message.status = event.status;
  message.id = event.id;
  message.listen_id = event.listener;
  message.multicast = event.multicast;
  message.is_datagram = event.is_datagram ? 1 : 0;
  message.connection = {.qpn = event.parameters.qpn,
                        .qkey = event.parameters.qkey,
                        .responder_resources = event.parameters.responder_resources,
                        .initiator_depth = event.parameters.initiator_depth,
                        .flow_control = event.parameters.flow_control,
                        .retry_count = event.parameters.retry_count,
                        .rnr_retry_count = event.parameters.rnr_retry_count,
                        .srq = event.parameters.srq,
                        .qp_type = event.parameters.qp_type};
  message.address_handle = message_handle(event.address_handle);
  const std::size_t bytes = std::min(event.private_data.size(), message.private_data.data.size());
  message.private_data.bytes = static_cast<std::uint16_t>(bytes);
  if (bytes > 0) std::memcpy(message.private_data.data.data(), event.private_data.data(), bytes);
  return message;
}

}  // namespace isthmus::control
