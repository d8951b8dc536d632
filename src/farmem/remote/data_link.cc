#include "farmem/remote/data_link.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "os/random.h"

namespace isthmus::farmem {
namespace {

constexpr std::array<std::uint8_t, 12> kMappedPrefix{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
constexpr std::uint8_t kHopLimit = 64;
constexpr std::uint8_t kMostReads = 128;  // Of the protocol.

ibv_gid verbs_gid(const Gid& gid) {
  ibv_gid raw;
  std::memcpy(raw.raw, gid.data(), gid.size());
  return raw;
}

Result<ibv_port_attr> query_port(ibv_context& context) {
  ibv_port_attr port{};
  if (const int error = ibv_query_port(&context, kDataPort, &port); error != 0) {
    return fail_errno(error, "ask the RDMA device for its port");
  }
  return port;
}

Gid read_gid(ibv_context& context, int index) {
  Gid gid{};
  ibv_gid raw{};
  if (ibv_query_gid(&context, kDataPort, index, &raw) == 0) {
    std::memcpy(gid.data(), raw.raw, gid.size());
  }
  return gid;
}

bool is_mapped(const Gid& gid) {
  return std::equal(kMappedPrefix.begin(), kMappedPrefix.end(), gid.begin());
}

bool is_loopback(const Gid& gid) { return is_mapped(gid) && gid[12] == 127; }

}  // namespace

Result<ContextOwner> open_data_context() {
  int count = 0;
  ibv_device** list = ibv_get_device_list(&count);
  ContextOwner context{list != nullptr && count > 0 ? ibv_open_device(list[0]) : nullptr};
  const int error = errno;
  if (list != nullptr) ibv_free_device_list(list);
  if (count == 0) {
    return fail(ErrorCode::kNotFound,
                "there is no RDMA device here; start the program with `isthmus run`");
  }
  if (!context) return fail_errno(error, "open the RDMA device");
  return context;
}

Gid gid_of(const sockaddr& address) {
  Gid gid{};
  if (address.sa_family == AF_INET) {
    sockaddr_in v4;
    std::memcpy(&v4, &address, sizeof(v4));
    std::ranges::copy(kMappedPrefix, gid.begin());
    std::memcpy(gid.data() + kMappedPrefix.size(), &v4.sin_addr, sizeof(v4.sin_addr));
  } else if (address.sa_family == AF_INET6) {
    sockaddr_in6 v6;
    std::memcpy(&v6, &address, sizeof(v6));
    std::memcpy(gid.data(), &v6.sin6_addr, gid.size());
  }
  return gid;
}

Gid first_gid(ibv_context& context) {
  Gid found{};
  const auto port = query_port(context);
  for (int index = 0; port && index < port->gid_tbl_len; ++index) {
    const Gid gid = read_gid(context, index);
    // An address of IPv4 is what people type; link-local ones of IPv6 mean nothing elsewhere.
    if (!is_mapped(gid)) continue;
    if (found == Gid{} || (is_loopback(found) && !is_loopback(gid))) found = gid;
  }
  return found;
}

std::string text_of(const Gid& gid) {
  std::array<char, INET6_ADDRSTRLEN> text{};
  if (is_mapped(gid)) {
    inet_ntop(AF_INET, gid.data() + kMappedPrefix.size(), text.data(), text.size());
  } else {
    inet_ntop(AF_INET6, gid.data(), text.data(), text.size());
  }
  return text.data();
}

Result<LinkPlace> find_link_place(ibv_context& context, const Gid& gid) {
  const ibv_port_attr port = ISTHMUS_TRY(query_port(context));
  ibv_device_attr device{};
  if (const int error = ibv_query_device(&context, &device); error != 0) {
    return fail_errno(error, "ask the RDMA device for its limits");
  }
  for (int index = 0; index < port.gid_tbl_len; ++index) {
    if (read_gid(context, index) != gid) continue;
    const int reads = std::min(device.max_qp_rd_atom, device.max_qp_init_rd_atom);
    return LinkPlace{.gid = gid,
                     .gid_index = index,
                     .mtu = static_cast<std::uint8_t>(port.active_mtu),
                     .reads = static_cast<std::uint8_t>(std::clamp<int>(reads, 1, kMostReads))};
  }
  return fail(ErrorCode::kNotFound, "the RDMA device has no address %s", text_of(gid).c_str());
}

Result<QpOwner> create_data_qp(ibv_pd& pd, ibv_cq& cq, std::uint32_t depth) {
  ibv_qp_init_attr init{};
  init.send_cq = init.recv_cq = &cq;
  init.cap.max_send_wr = depth;
  init.cap.max_send_sge = 1;
  init.qp_type = IBV_QPT_RC;
  QpOwner qp{ibv_create_qp(&pd, &init)};
  if (!qp) return fail_errno(errno, "create a queue pair");
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_INIT;
  attr.port_num = kDataPort;
  attr.qp_access_flags = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;
  const int mask = IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
  if (const int error = ibv_modify_qp(qp.get(), &attr, mask); error != 0) {
    return fail_errno(error, "prepare a queue pair");
  }
  return qp;
}

ChannelEnd describe_end(const ibv_qp& qp, const LinkPlace& place, std::uint32_t psn) {
  return {.qpn = qp.qp_num, .psn = psn, .gid = place.gid, .mtu = place.mtu, .reads = place.reads};
}

Result<void> join_data_qp(ibv_qp& qp, const LinkPlace& place, std::uint32_t psn,
                          const ChannelEnd& other) {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_RTR;
  attr.path_mtu = static_cast<ibv_mtu>(std::min(place.mtu, other.mtu));
  attr.dest_qp_num = other.qpn;
  attr.rq_psn = other.psn;
  attr.max_dest_rd_atomic = std::min(place.reads, other.reads);
  attr.min_rnr_timer = 1;
  attr.ah_attr.is_global = 1;
  attr.ah_attr.port_num = kDataPort;
  attr.ah_attr.grh.dgid = verbs_gid(other.gid);
  attr.ah_attr.grh.sgid_index = static_cast<std::uint8_t>(place.gid_index);
  attr.ah_attr.grh.hop_limit = kHopLimit;
  int mask = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
             IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
  if (const int error = ibv_modify_qp(&qp, &attr, mask); error != 0) {
    return fail_errno(error, "join a queue pair with " + text_of(other.gid));
  }
  attr.qp_state = IBV_QPS_RTS;
  attr.timeout = kDataTimeout;
  attr.retry_cnt = kDataRetries;
  attr.rnr_retry = kDataRetries;
  attr.sq_psn = psn;
  attr.max_rd_atomic = std::min(place.reads, other.reads);
  mask = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
         IBV_QP_MAX_QP_RD_ATOMIC;
  if (const int error = ibv_modify_qp(&qp, &attr, mask); error != 0) {
    return fail_errno(error, "join a queue pair with " + text_of(other.gid));
  }
  return {};
}

void fail_data_qp(ibv_qp& qp) {
  ibv_qp_attr attr{};
  attr.qp_state = IBV_QPS_ERR;
  ibv_modify_qp(&qp, &attr, IBV_QP_STATE);
}

std::uint32_t draw_psn() { return static_cast<std::uint32_t>(os::random_u64()) & 0xff'ffff; }

}  // namespace isthmus::farmem
