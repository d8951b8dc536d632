#include "rdmacm/identifier.h"

#include <arpa/inet.h>

#include <cstdlib>
#include <cstring>

#include "rdmacm/failure.h"
#include "rdmacm/session.h"

namespace isthmus::rdmacm {
namespace {

constexpr std::uint8_t kExactly = 2;  // Selector of a path record: exactly this value.

ibv_gid to_gid(const std::array<std::uint8_t, 16>& bytes) {
  ibv_gid gid{};
  std::memcpy(gid.raw, bytes.data(), sizeof gid.raw);
  return gid;
}

ibv_sa_path_rec to_path(const attach::CmRoute& route) {
  ibv_sa_path_rec path{};
  path.sgid = to_gid(route.source_gid);
  path.dgid = to_gid(route.destination_gid);
  path.flow_label = htonl(route.flow_label);
  path.hop_limit = route.hop_limit;
  path.traffic_class = route.traffic_class;
  path.reversible = 1;
  path.numb_path = 1;
  path.pkey = htons(route.pkey);
  path.sl = route.service_level;
  path.mtu_selector = kExactly;
  path.mtu = route.mtu;
  path.rate_selector = kExactly;
  path.rate = route.rate;
  path.packet_life_time_selector = kExactly;
  path.packet_life_time = route.packet_life_time;
  return path;
}

}  // namespace

Identifier::~Identifier() {
  if (device != nullptr) session->devices().release(*device);
  std::free(route.path_rec);
  if (resolved != nullptr) rdma_freeaddrinfo(resolved);
}

Result<void> apply_route(Identifier& identifier, const attach::CmRoute& route) {
  {
    std::lock_guard lock(identifier.facts_mutex);
    identifier.last_route = route;
  }
  rdma_addr& address = identifier.route.addr;
  attach::write_sockaddr(route.source, &address.src_addr);
  attach::write_sockaddr(route.destination, &address.dst_addr);
  address.addr.ibaddr.sgid = to_gid(route.source_gid);
  address.addr.ibaddr.dgid = to_gid(route.destination_gid);
  if (route.bound != 0) {
    address.addr.ibaddr.pkey = htons(route.pkey);
    identifier.port_num = route.port_num;
    if (identifier.device == nullptr) {
      identifier.device = ISTHMUS_TRY(identifier.session->devices().acquire(route.node_guid));
      identifier.verbs = identifier.device->context;
      identifier.pd = identifier.device->pd;
    }
  }
  if (route.path_count != 0) {
    if (identifier.route.path_rec == nullptr) {
      identifier.route.path_rec =
          static_cast<ibv_sa_path_rec*>(std::calloc(1, sizeof(ibv_sa_path_rec)));
      if (identifier.route.path_rec == nullptr) return fail_with(ENOMEM, "keep a path record");
      identifier.route.num_paths = 1;
    }
    *identifier.route.path_rec = to_path(route);
  }
  return {};
}

ibv_ah_attr to_verbs(const attach::CmAddressHandle& handle) {
  ibv_ah_attr attributes{};
  attributes.grh.dgid = to_gid(handle.destination_gid);
  attributes.grh.flow_label = handle.flow_label;
  attributes.grh.sgid_index = handle.source_gid_index;
  attributes.grh.hop_limit = handle.hop_limit;
  attributes.grh.traffic_class = handle.traffic_class;
  attributes.dlid = handle.dlid;
  attributes.sl = handle.service_level;
  attributes.static_rate = handle.static_rate;
  attributes.is_global = handle.is_global;
  attributes.port_num = handle.port_num;
  return attributes;
}

void to_verbs(const attach::CmQpAttributesReply& reply, ibv_qp_attr& attributes, int& mask) {
  attributes = ibv_qp_attr{};
  attributes.qp_state = static_cast<ibv_qp_state>(reply.qp_state);
  attributes.cur_qp_state = attributes.qp_state;
  attributes.path_mtu = static_cast<ibv_mtu>(reply.path_mtu);
  attributes.qkey = reply.qkey;
  attributes.rq_psn = reply.rq_psn;
  attributes.sq_psn = reply.sq_psn;
  attributes.dest_qp_num = reply.dest_qpn;
  attributes.qp_access_flags = reply.access_flags;
  attributes.ah_attr = to_verbs(reply.address_handle);
  attributes.pkey_index = reply.pkey_index;
  attributes.port_num = reply.port_num;
  attributes.max_rd_atomic = reply.max_rd_atomic;
  attributes.max_dest_rd_atomic = reply.max_dest_rd_atomic;
  attributes.min_rnr_timer = reply.min_rnr_timer;
  attributes.timeout = reply.timeout;
  attributes.retry_cnt = reply.retry_count;
  attributes.rnr_retry = reply.rnr_retry;
  mask = static_cast<int>(reply.mask);
}

}  // namespace isthmus::rdmacm
