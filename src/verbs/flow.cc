// Flow steering: which frames a raw packet queue pair gets, from the form in which programs say it.
//
// Input: a program's list of specifications of several sizes. The size of each is checked; that of
// the whole is not, because pyverbs and with it others give that of the first struct alone.
#include <infiniband/verbs.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "rdma/flow_rule.h"
#include "verbs/context.h"
#include "verbs/operations.h"

namespace isthmus::verbs {
namespace {

constexpr std::uint8_t kPortNumber = 1;
constexpr std::byte kAllBits{0xff};
constexpr std::byte kGroupBit{1};  // Of an Ethernet address's first byte: a multicast address.

// Writes one kind of row, the values or the mask, from one kind of filter.
void copy(const void* from, std::span<std::byte> to) { std::memcpy(to.data(), from, to.size()); }

void fill(const ibv_flow_eth_filter& filter, rdma::FlowFields& row) {
  copy(filter.dst_mac, row.dst_mac);
  copy(filter.src_mac, row.src_mac);
  copy(&filter.ether_type, row.ether_type);
  copy(&filter.vlan_tag, row.vlan_tag);
}

void fill(const ibv_flow_ipv4_filter& filter, rdma::FlowFields& row) {
  copy(&filter.src_ip, std::span{row.src_ip}.first<4>());
  copy(&filter.dst_ip, std::span{row.dst_ip}.first<4>());
}

void fill(const ibv_flow_ipv4_ext_filter& filter, rdma::FlowFields& row) {
  fill(ibv_flow_ipv4_filter{filter.src_ip, filter.dst_ip}, row);
  row.protocol = std::byte{filter.proto};
  row.traffic_class = std::byte{filter.tos};
  row.hop_limit = std::byte{filter.ttl};
}

void fill(const ibv_flow_ipv6_filter& filter, rdma::FlowFields& row) {
  copy(filter.src_ip, row.src_ip);
  copy(filter.dst_ip, row.dst_ip);
  copy(&filter.flow_label, row.flow_label);
  row.protocol = std::byte{filter.next_hdr};
  row.traffic_class = std::byte{filter.traffic_class};
  row.hop_limit = std::byte{filter.hop_limit};
}

void fill(const ibv_flow_tcp_udp_filter& filter, rdma::FlowFields& row) {
  copy(&filter.src_port, row.src_port);
  copy(&filter.dst_port, row.dst_port);
}

class RuleReader {
 public:
  Result<rdma::FlowRule> read(const ibv_flow_attr& attr);

 private:
  Result<void> read_attributes(const ibv_flow_attr& attr);
  Result<void> read_spec(unsigned type, std::size_t bytes, const std::byte* from);
  template <class Spec>
  Result<Spec> read_filter(std::size_t bytes, const std::byte* from);
  Result<void> require(std::byte rdma::FlowFields::*layer, int number);

  rdma::FlowRule rule_;
};

Result<void> RuleReader::read_attributes(const ibv_flow_attr& attr) {
  if (attr.comp_mask != 0 || attr.port != kPortNumber) {
    return fail(ErrorCode::kInvalid, "a flow of port %u with fields 0x%x", attr.port,
                attr.comp_mask);
  }
  if (attr.flags & ~std::uint32_t{IBV_FLOW_ATTR_FLAGS_DONT_TRAP}) {
    return fail(ErrorCode::kUnsupported, "flow flags 0x%x", attr.flags);
  }
  rule_.goes_on = attr.flags & IBV_FLOW_ATTR_FLAGS_DONT_TRAP;
  rule_.priority = attr.priority;
  switch (attr.type) {
    case IBV_FLOW_ATTR_NORMAL:
      return {};
    case IBV_FLOW_ATTR_MC_DEFAULT:
      rule_.value.dst_mac[0] = rule_.mask.dst_mac[0] = kGroupBit;
      [[fallthrough]];
    case IBV_FLOW_ATTR_ALL_DEFAULT:
      rule_.order = rdma::FlowClass::kDefault;
      if (attr.num_of_specs == 0) return {};
      return fail(ErrorCode::kInvalid, "a default flow takes no specifications");
    default:
      return fail(ErrorCode::kUnsupported, "flow type %d", static_cast<int>(attr.type));
  }
}

template <class Spec>
Result<Spec> RuleReader::read_filter(std::size_t bytes, const std::byte* from) {
  Spec spec;
  if (bytes != sizeof spec) {
    return fail(ErrorCode::kInvalid, "a flow specification of %zu bytes instead of %zu", bytes,
                sizeof spec);
  }
  std::memcpy(&spec, from, sizeof spec);
  fill(spec.val, rule_.value);
  fill(spec.mask, rule_.mask);
  return spec;
}

// A rule names a layer once, and never two in the same place.
Result<void> RuleReader::require(std::byte rdma::FlowFields::*layer, int number) {
  if (rule_.mask.*layer != std::byte{0}) {
    return fail(ErrorCode::kInvalid, "a flow with two specifications of one layer");
  }
  rule_.value.*layer = static_cast<std::byte>(number);
  rule_.mask.*layer = kAllBits;
  return {};
}

Result<void> RuleReader::read_spec(unsigned type, std::size_t bytes, const std::byte* from) {
  using Fields = rdma::FlowFields;
  switch (type) {
    case IBV_FLOW_SPEC_ETH: {
      const auto spec = ISTHMUS_TRY(read_filter<ibv_flow_spec_eth>(bytes, from));
      if (spec.mask.vlan_tag != 0) ISTHMUS_TRY_VOID(require(&Fields::is_tagged, 1));
      return {};
    }
    case IBV_FLOW_SPEC_IPV4:
      ISTHMUS_TRY_VOID(require(&Fields::ip_version, 4));
      ISTHMUS_TRY(read_filter<ibv_flow_spec_ipv4>(bytes, from));
      return {};
    case IBV_FLOW_SPEC_IPV4_EXT: {
      ISTHMUS_TRY_VOID(require(&Fields::ip_version, 4));
      const auto spec = ISTHMUS_TRY(read_filter<ibv_flow_spec_ipv4_ext>(bytes, from));
      if (spec.mask.flags == 0) return {};
      return fail(ErrorCode::kUnsupported, "flows by the flags of IPv4");
    }
    case IBV_FLOW_SPEC_IPV6:
      ISTHMUS_TRY_VOID(require(&Fields::ip_version, 6));
      ISTHMUS_TRY(read_filter<ibv_flow_spec_ipv6>(bytes, from));
      return {};
    case IBV_FLOW_SPEC_TCP:
    case IBV_FLOW_SPEC_UDP:
      ISTHMUS_TRY_VOID(require(&Fields::transport,
                               type == IBV_FLOW_SPEC_TCP ? IPPROTO_TCP : IPPROTO_UDP));
      ISTHMUS_TRY(read_filter<ibv_flow_spec_tcp_udp>(bytes, from));
      return {};
    case IBV_FLOW_SPEC_ACTION_DROP:
      if (bytes != sizeof(ibv_flow_spec_action_drop)) {
        return fail(ErrorCode::kInvalid, "a drop action of %zu bytes", bytes);
      }
      rule_.drops = true;
      return {};
    default:
      return fail(ErrorCode::kUnsupported, "flow specifications of type 0x%x", type);
  }
}

Result<rdma::FlowRule> RuleReader::read(const ibv_flow_attr& attr) {
  ISTHMUS_TRY_VOID(read_attributes(attr));
  // SAFETY: the specifications stand behind the attributes, num_of_specs of them, each as long as
  // it says; the program vouches for that, as the manual asks.
  const auto* from = reinterpret_cast<const std::byte*>(&attr + 1);
  for (int i = 0; i < attr.num_of_specs; ++i) {
    decltype(ibv_flow_spec{}.hdr) header;
    std::memcpy(&header, from, sizeof header);
    ISTHMUS_TRY_VOID(read_spec(static_cast<unsigned>(header.type), header.size, from));
    from += header.size;
  }
  // Bits outside the mask say nothing, and rules compare by their values.
  const auto values = std::as_writable_bytes(std::span{&rule_.value, 1});
  const auto masks = std::as_bytes(std::span{&rule_.mask, 1});
  std::ranges::transform(values, masks, values.begin(), std::bit_and{});
  return rule_;
}

}  // namespace

ibv_flow* create_flow(ibv_qp* abi, ibv_flow_attr* attr) {
  Qp& qp = Qp::of(abi);
  Context& context = *qp.owner;
  if (context.is_inherited()) return no_object(EIO);
  const auto rule = RuleReader{}.read(*attr);
  if (!rule) return no_object(rule.error());

  const std::scoped_lock guard{context.lock};
  const auto number = context.engine().attach_flow(*qp.pair, *rule);
  if (!number) return no_object(number.error());
  auto made = std::make_unique<FlowSteering>();
  made->context = abi->context;
  made->handle = *number;
  made->owner = &context;
  made->number = *number;
  context.objects.flows.insert(made.get());
  return made.release();
}

int destroy_flow(ibv_flow* abi) {
  auto* flow = static_cast<FlowSteering*>(abi);
  Context& context = *flow->owner;
  if (context.is_inherited()) return verbs_error(EIO);
  {
    const std::scoped_lock guard{context.lock};
    context.engine().detach_flow(flow->number);
    context.objects.flows.erase(flow);
  }
  delete flow;
  return 0;
}

}  // namespace isthmus::verbs
