// What the device and its port can do: every limit here is enforced where it applies.
#include "verbs/port.h"

#include <algorithm>
#include <cstring>

#include "os/clock.h"
#include "rdma/limits.h"
#include "verbs/context.h"
#include "verbs/operations.h"

#undef ibv_query_port

namespace isthmus::verbs {
namespace {

constexpr int kPortNumber = 1;
constexpr __be16 kDefaultPkey = 0xffff;  // The same in both byte orders.
constexpr std::uint32_t kNdevUnknown = 0;
constexpr std::uint8_t kWidth4x = 2;
constexpr std::uint8_t kSpeedEdr = 32;       // 25 Gbit/s a lane.
constexpr std::uint64_t kPortSpeed100Mbps = 1000;  // The same as 4X EDR, in units of 100 Mbit/s.
constexpr std::uint8_t kPhysicalLinkUp = 5;
constexpr std::uint8_t kSubnetTimeout = 18;  // 4.096 µs * 2^18: about a second.
constexpr std::uint8_t kAckDelay = 15;       // 4.096 µs * 2^15: 134 ms, for a busy processor.
constexpr std::uint64_t kClockKhz = 1'000'000;  // Completion timestamps count nanoseconds.
constexpr int kMaxMulticastMembers = 256;       // Of one group.

ibv_device_attr device_attr(const DeviceFacts& facts) {
  ibv_device_attr attr{};
  std::strncpy(attr.fw_ver, kFirmwareVersion, sizeof attr.fw_ver - 1);
  attr.node_guid = attr.sys_image_guid = htobe64(facts.guid);
  attr.max_mr_size = UINT64_MAX;
  attr.page_size_cap = ~std::uint64_t{4095};
  attr.vendor_id = kVendorId;
  attr.vendor_part_id = 0;
  attr.hw_ver = 1;
  attr.max_qp = rdma::kMaxQueuePairs;
  attr.max_qp_wr = rdma::kMaxWorkRequests;
  attr.device_cap_flags = IBV_DEVICE_RC_RNR_NAK_GEN | IBV_DEVICE_SRQ_RESIZE |
                          IBV_DEVICE_MEM_WINDOW | IBV_DEVICE_MEM_WINDOW_TYPE_2B |
                          IBV_DEVICE_MEM_MGT_EXTENSIONS | IBV_DEVICE_XRC |
                          IBV_DEVICE_SYS_IMAGE_GUID | IBV_DEVICE_CURR_QP_STATE_MOD |
                          IBV_DEVICE_PORT_ACTIVE_EVENT |
                          IBV_DEVICE_MANAGED_FLOW_STEERING;
  attr.max_sge = attr.max_sge_rd = rdma::kMaxSge;
  attr.max_cq = kMaxCompletionQueues;
  attr.max_cqe = rdma::kMaxCqEntries;
  attr.max_mr = attr.max_mw = rdma::kMaxKeys - 1;
  attr.max_pd = kMaxProtectionDomains;
  attr.max_qp_rd_atom = attr.max_qp_init_rd_atom = rdma::kMaxReadAtomic;
  attr.max_res_rd_atom = rdma::kMaxReadAtomic * rdma::kMaxQueuePairs;
  attr.atomic_cap = IBV_ATOMIC_HCA;
  attr.max_mcast_grp = rdma::kMaxMulticastGroups;
  attr.max_mcast_qp_attach = kMaxMulticastMembers;
  attr.max_total_mcast_qp_attach = rdma::kMaxMulticastGroups * kMaxMulticastMembers;
  attr.max_ah = kMaxAddressHandles;
  attr.max_srq = rdma::kMaxSharedReceiveQueues;
  attr.max_srq_wr = rdma::kMaxWorkRequests;
  attr.max_srq_sge = rdma::kMaxSge;
  attr.max_pkeys = 1;
  attr.local_ca_ack_delay = kAckDelay;
  attr.phys_port_cnt = 1;
  return attr;
}

ibv_device_attr_ex device_attr_ex(const DeviceFacts& facts) {
  constexpr std::uint32_t kOdpSends = IBV_ODP_SUPPORT_SEND | IBV_ODP_SUPPORT_RECV;
  constexpr std::uint32_t kOdpAll = kOdpSends | IBV_ODP_SUPPORT_WRITE | IBV_ODP_SUPPORT_READ |
                                    IBV_ODP_SUPPORT_ATOMIC | IBV_ODP_SUPPORT_SRQ_RECV;
  ibv_device_attr_ex attr{};
  attr.orig_attr = device_attr(facts);
  attr.odp_caps.general_caps = IBV_ODP_SUPPORT | IBV_ODP_SUPPORT_IMPLICIT;
  attr.odp_caps.per_transport_caps.rc_odp_caps = kOdpAll;
  attr.odp_caps.per_transport_caps.uc_odp_caps =
      kOdpSends | IBV_ODP_SUPPORT_WRITE | IBV_ODP_SUPPORT_SRQ_RECV;
  attr.odp_caps.per_transport_caps.ud_odp_caps = kOdpSends | IBV_ODP_SUPPORT_SRQ_RECV;
  attr.xrc_odp_caps = kOdpAll;
  attr.completion_timestamp_mask = UINT64_MAX;
  attr.hca_core_clock = kClockKhz;
  attr.device_cap_flags_ex = attr.orig_attr.device_cap_flags;
  attr.cq_mod_caps = {.max_cq_count = UINT16_MAX, .max_cq_period = UINT16_MAX};
  attr.max_dm_size = kMaxDeviceMemoryBytes;
  attr.phys_port_cnt_ex = 1;
  return attr;
}

ibv_port_attr port_attr(const DeviceFacts& facts) {
  ibv_port_attr attr{};
  attr.state = IBV_PORT_ACTIVE;
  attr.max_mtu = IBV_MTU_4096;
  attr.active_mtu = facts.active_mtu;
  attr.gid_tbl_len = rdma::kMaxGids;
  attr.port_cap_flags = IBV_PORT_CM_SUP | IBV_PORT_IP_BASED_GIDS;
  attr.max_msg_sz = rdma::kMaxMessageBytes;
  attr.pkey_tbl_len = 1;
  attr.max_vl_num = 1;
  attr.subnet_timeout = kSubnetTimeout;
  attr.active_width = kWidth4x;
  attr.active_speed = kSpeedEdr;
  attr.phys_state = kPhysicalLinkUp;
  attr.link_layer = IBV_LINK_LAYER_ETHERNET;
  attr.flags = IBV_QPF_GRH_REQUIRED;
  return attr;
}

// The caller's struct may be shorter or longer than ours.
template <class Attr>
void copy_out(const Attr& from, void* to, std::size_t bytes) {
  std::memset(to, 0, bytes);
  std::memcpy(to, &from, std::min(bytes, sizeof from));
}

ibv_gid_entry entry_of(const DeviceFacts& facts, std::size_t index) {
  const GidFact& gid = facts.gids[index];
  ibv_gid_entry entry{};
  std::memcpy(entry.gid.raw, gid.address.bytes().data(), sizeof entry.gid.raw);
  entry.gid_index = static_cast<std::uint32_t>(index);
  entry.port_num = kPortNumber;
  entry.gid_type = IBV_GID_TYPE_ROCE_V2;
  entry.ndev_ifindex = gid.interface_index ? gid.interface_index : kNdevUnknown;
  return entry;
}

bool is_used(const DeviceFacts& facts, std::size_t index) {
  return index < facts.gids.size() && facts.gids[index].is_used();
}

}  // namespace

int query_port(ibv_context* context, std::uint8_t port_number, ibv_port_attr* attr,
               std::size_t attr_bytes) {
  if (port_number != kPortNumber) return verbs_error(EINVAL);
  copy_out(port_attr(Context::of(context).facts()), attr, attr_bytes);
  return 0;
}

int query_device_ex(ibv_context* context, const ibv_query_device_ex_input* input,
                    ibv_device_attr_ex* attr, std::size_t attr_bytes) {
  if (input && input->comp_mask != 0) return verbs_error(EINVAL);
  copy_out(device_attr_ex(Context::of(context).facts()), attr, attr_bytes);
  return 0;
}

int query_rt_values(ibv_context*, ibv_values_ex* values) {
  if ((values->comp_mask & ~static_cast<std::uint32_t>(IBV_VALUES_MASK_RAW_CLOCK)) != 0) {
    return verbs_error(EINVAL);
  }
  const std::uint64_t now = os::now_ns();
  values->raw_clock = {.tv_sec = static_cast<time_t>(now / os::kNsPerSecond),
                       .tv_nsec = static_cast<long>(now % os::kNsPerSecond)};
  return 0;
}

int query_gid_type_of_sysfs(ibv_context* context, std::uint8_t port_number, unsigned index,
                            int* type) {
  if (port_number != kPortNumber || index >= rdma::kMaxGids) {
    verbs_error(EINVAL);
    return -1;
  }
  *type = is_used(Context::of(context).facts(), index) ? 1 : 0;
  return 0;
}

}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

int ibv_query_device(ibv_context* context, ibv_device_attr* attr) {
  using namespace isthmus::verbs;
  *attr = device_attr(Context::of(context).facts());
  return 0;
}

// For binaries of before 2018: the struct ended with `flags` then.
int ibv_query_port(ibv_context* context, uint8_t port_num, _compat_ibv_port_attr* attr) {
  constexpr std::size_t kCompatBytes = offsetof(ibv_port_attr, flags) + 1;
  static_assert(kCompatBytes == 48);
  // SAFETY: the old struct is the beginning of the new one; no more than that is written.
  return isthmus::verbs::query_port(context, port_num, reinterpret_cast<ibv_port_attr*>(attr),
                                    kCompatBytes);
}

int ibv_query_gid(ibv_context* context, uint8_t port_num, int index, ibv_gid* gid) {
  using namespace isthmus::verbs;
  if (port_num != kPortNumber || index < 0 ||
      static_cast<std::uint32_t>(index) >= isthmus::rdma::kMaxGids) {
    verbs_error(EINVAL);
    return -1;
  }
  const DeviceFacts facts = Context::of(context).facts();
  *gid = {};
  if (is_used(facts, static_cast<std::size_t>(index))) {
    *gid = entry_of(facts, static_cast<std::size_t>(index)).gid;
  }
  return 0;
}

int _ibv_query_gid_ex(ibv_context* context, uint32_t port_num, uint32_t gid_index,
                      ibv_gid_entry* entry, uint32_t flags, size_t entry_size) {
  using namespace isthmus::verbs;
  if (flags != 0 || port_num != kPortNumber || gid_index >= isthmus::rdma::kMaxGids) {
    return verbs_error(EINVAL);
  }
  const DeviceFacts facts = Context::of(context).facts();
  if (!is_used(facts, gid_index)) return verbs_error(ENODATA);
  copy_out(entry_of(facts, gid_index), entry, entry_size);
  return 0;
}

ssize_t _ibv_query_gid_table(ibv_context* context, ibv_gid_entry* entries, size_t max_entries,
                             uint32_t flags, size_t entry_size) {
  using namespace isthmus::verbs;
  if (flags != 0) return -EINVAL;
  const DeviceFacts facts = Context::of(context).facts();
  std::size_t count = 0;
  for (std::size_t i = 0; i < facts.gids.size(); ++i) {
    if (!is_used(facts, i)) continue;
    if (count == max_entries) return -EINVAL;
    copy_out(entry_of(facts, i), reinterpret_cast<char*>(entries) + count++ * entry_size,
             entry_size);
  }
  return static_cast<ssize_t>(count);
}

int ibv_query_pkey(ibv_context*, uint8_t port_num, int index, __be16* pkey) {
  using namespace isthmus::verbs;
  if (port_num != kPortNumber || index != 0) {
    verbs_error(EINVAL);
    return -1;
  }
  *pkey = kDefaultPkey;
  return 0;
}

int ibv_get_pkey_index(ibv_context*, uint8_t port_num, __be16 pkey) {
  using namespace isthmus::verbs;
  return port_num == kPortNumber && pkey == kDefaultPkey ? 0 : -1;
}

// Since rdma-core v60; verbs.h here does not declare it.
int ibv_query_port_speed(ibv_context*, uint32_t port_num, uint64_t* port_speed) {
  if (port_num != isthmus::verbs::kPortNumber) return isthmus::verbs::verbs_error(EINVAL);
  *port_speed = isthmus::verbs::kPortSpeed100Mbps;
  return 0;
}

}  // extern "C"
#pragma GCC visibility pop
