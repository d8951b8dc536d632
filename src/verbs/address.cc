// Address handles, multicast groups, and Ethernet addresses of GIDs.
#include <infiniband/verbs.h>

#include <algorithm>
#include <cstring>

#include "verbs/context.h"

namespace isthmus::verbs {
namespace {

constexpr std::size_t kGrhIpv4Offset = 20;  // An IPv4 header fills the second half of a GRH.
constexpr std::size_t kIpv4SourceOffset = 12;
constexpr std::size_t kIpv4DestinationOffset = 16;
constexpr std::uint32_t kFlowLabelMask = 0xf'ffff;

wire::IpAddress address_of(const ibv_gid& gid) {
  return wire::IpAddress::from_bytes(std::as_bytes(std::span<const std::uint8_t, 16>{gid.raw}));
}

struct Flow {
  wire::IpAddress source;
  wire::IpAddress destination;
  std::uint32_t flow_label = 0;
  std::uint8_t traffic_class = 0;
};

// What the 40 bytes in front of a datagram say of its way; nothing if they are no IP header.
std::optional<Flow> flow_of(const ibv_grh& grh) {
  std::array<std::byte, sizeof grh> bytes;
  std::memcpy(bytes.data(), &grh, sizeof grh);
  const std::uint32_t first = be32toh(grh.version_tclass_flow);
  if (first >> 28 == 6) {
    return Flow{.source = address_of(grh.sgid),
                .destination = address_of(grh.dgid),
                .flow_label = first & kFlowLabelMask,
                .traffic_class = static_cast<std::uint8_t>(first >> 20 & 0xff)};
  }
  const std::span<const std::byte> ipv4{bytes.data() + kGrhIpv4Offset, wire::kIpv4Bytes};
  if (std::to_integer<unsigned>(ipv4[0]) >> 4 != 4) return std::nullopt;
  return Flow{.source = wire::IpAddress::from_v4_bytes(ipv4.subspan<kIpv4SourceOffset, 4>()),
              .destination =
                  wire::IpAddress::from_v4_bytes(ipv4.subspan<kIpv4DestinationOffset, 4>()),
              .flow_label = 0,
              .traffic_class = std::to_integer<std::uint8_t>(ipv4[1])};
}

Result<rdma::Path> path_of(Context& context, const ibv_ah_attr& attr) {
  if (!attr.is_global || attr.port_num != 1) {
    return fail(ErrorCode::kInvalid, "RoCE needs a GRH and port 1");
  }
  const std::scoped_lock guard{context.lock};
  const auto gids = context.engine().gids();
  if (attr.grh.sgid_index >= gids.size() || gids[attr.grh.sgid_index].is_zero()) {
    return fail(ErrorCode::kInvalid, "no GID with index %u", attr.grh.sgid_index);
  }
  const rdma::Path path{.source = gids[attr.grh.sgid_index],
                        .destination = address_of(attr.grh.dgid)};
  if (path.destination.is_zero() || path.destination.is_v4() != path.source.is_v4()) {
    return fail(ErrorCode::kInvalid, "GID %s does not reach %s", path.source.to_string().c_str(),
                path.destination.to_string().c_str());
  }
  return path;
}

}  // namespace
}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

ibv_ah* ibv_create_ah(ibv_pd* abi, ibv_ah_attr* attr) {
  using namespace isthmus::verbs;
  Pd& pd = Pd::of(abi);
  Context& context = *pd.owner;
  if (context.is_inherited()) return no_object(EIO);
  const auto path = path_of(context, *attr);
  if (!path) return no_object(path.error());
  auto made = std::make_unique<Ah>();
  made->handle.abi.context = abi->context;
  made->handle.abi.pd = abi;
  made->handle.path = *path;
  made->handle.attr = *attr;
  made->owner = &context;
  made->domain = &pd.domain();
  const std::scoped_lock guard{context.lock};
  if (context.objects.address_handles == kMaxAddressHandles) return no_object(ENOMEM);
  made->handle.abi.handle = ++context.objects.address_handles;
  ++made->domain->in_use;
  return &made.release()->handle.abi;
}

int ibv_destroy_ah(ibv_ah* abi) {
  using namespace isthmus::verbs;
  Ah* ah = &Ah::of(abi);
  Context& context = *ah->owner;
  if (context.is_inherited()) return verbs_error(EIO);
  {
    const std::scoped_lock guard{context.lock};
    --context.objects.address_handles;
    --ah->domain->in_use;
  }
  delete ah;
  return 0;
}

int ibv_init_ah_from_wc(ibv_context* abi, uint8_t port_num, ibv_wc* wc, ibv_grh* grh,
                        ibv_ah_attr* attr) {
  using namespace isthmus::verbs;
  Context& context = Context::of(abi);
  *attr = {};
  attr->dlid = wc->slid;
  attr->sl = wc->sl;
  attr->src_path_bits = wc->dlid_path_bits;
  attr->port_num = port_num;
  if (!(wc->wc_flags & IBV_WC_GRH)) return 0;

  const auto flow = flow_of(*grh);
  if (!flow || context.is_inherited()) {
    verbs_error(flow ? EIO : EPROTONOSUPPORT);
    return -1;
  }
  const std::scoped_lock guard{context.lock};
  const auto gids = context.engine().gids();
  const auto own = std::ranges::find(gids, flow->destination);
  // A datagram to a group is answered from any address of the sender's family.
  const auto chosen = own != gids.end() ? own : std::ranges::find_if(gids, [&](const auto& gid) {
    return !gid.is_zero() && gid.is_v4() == flow->source.is_v4();
  });
  if (chosen == gids.end()) {
    verbs_error(ENOENT);
    return -1;
  }
  attr->is_global = 1;
  std::memcpy(attr->grh.dgid.raw, flow->source.bytes().data(), sizeof attr->grh.dgid.raw);
  attr->grh.sgid_index = static_cast<uint8_t>(chosen - gids.begin());
  attr->grh.flow_label = flow->flow_label;
  attr->grh.hop_limit = 64;
  attr->grh.traffic_class = flow->traffic_class;
  return 0;
}

ibv_ah* ibv_create_ah_from_wc(ibv_pd* pd, ibv_wc* wc, ibv_grh* grh, uint8_t port_num) {
  ibv_ah_attr attr{};
  if (ibv_init_ah_from_wc(pd->context, port_num, wc, grh, &attr) != 0) return nullptr;
  return ibv_create_ah(pd, &attr);
}

int ibv_attach_mcast(ibv_qp* abi, const ibv_gid* gid, uint16_t) {
  using namespace isthmus::verbs;
  Qp& qp = Qp::of(abi);
  Context& context = *qp.owner;
  if (context.is_inherited()) return verbs_error(EIO);
  const std::scoped_lock guard{context.lock};
  const auto attached = context.engine().attach_multicast(*qp.pair, address_of(*gid).bytes());
  return attached ? 0 : verbs_error(attached.error());
}

int ibv_detach_mcast(ibv_qp* abi, const ibv_gid* gid, uint16_t) {
  using namespace isthmus::verbs;
  Qp& qp = Qp::of(abi);
  Context& context = *qp.owner;
  if (context.is_inherited()) return verbs_error(EIO);
  const std::scoped_lock guard{context.lock};
  const auto detached = context.engine().detach_multicast(*qp.pair, address_of(*gid).bytes());
  return detached ? 0 : verbs_error(detached.error());
}

// The kernel resolves the neighbours of our sockets; only our own addresses are known here.
int ibv_resolve_eth_l2_from_gid(ibv_context* abi, ibv_ah_attr* attr, uint8_t* eth_mac,
                                uint16_t* vid) {
  using namespace isthmus::verbs;
  constexpr uint16_t kNoVlan = 0xffff;
  const DeviceFacts facts = Context::of(abi).facts();
  const auto destination = address_of(attr->grh.dgid);
  const auto own = std::ranges::find(facts.gids, destination, &GidFact::address);
  if (own == facts.gids.end()) return verbs_error(EOPNOTSUPP);
  std::memcpy(eth_mac, own->mac.data(), own->mac.size());
  if (vid) *vid = kNoVlan;
  return 0;
}

}  // extern "C"
#pragma GCC visibility pop
