// Data links: queue pairs on which nothing but RDMA READ and WRITE goes, joined with the numbers
// that the control connection exchanged.
//
// They are on a context opened for them alone: the connection manager's is shared by all ids of a
// process, and a fault must not wait for a lock that the program can hold.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "base/result.h"
#include "farmem/remote/node_protocol.h"
#include "farmem/remote/verbs_objects.h"

namespace isthmus::farmem {

constexpr std::uint8_t kDataPort = 1;  // The only port of the device.

// 4.096 us * 2^15 = 134 ms and seven retries: a peer that is gone costs 1.1 s, and a round trip of
// 100 ms is no loss.
constexpr std::uint8_t kDataTimeout = 15;
constexpr std::uint8_t kDataRetries = 7;

// The first device, opened anew. kNotFound: there is none; programs find it under `isthmus run`.
Result<ContextOwner> open_data_context();

// Of an IPv4 or IPv6 socket address; zeros for anything else.
Gid gid_of(const sockaddr& address);
// The first that is in use, rather not of the loopback; zeros without any.
Gid first_gid(ibv_context& context);
std::string text_of(const Gid& gid);

struct LinkPlace {
  Gid gid{};
  int gid_index = 0;
  std::uint8_t mtu = 0;
  std::uint8_t reads = 0;
};

// kNotFound: the context has no such address.
Result<LinkPlace> find_link_place(ibv_context& context, const Gid& gid);

// In state INIT, with the right for the other end to read and write.
Result<QpOwner> create_data_qp(ibv_pd& pd, ibv_cq& cq, std::uint32_t depth);

ChannelEnd describe_end(const ibv_qp& qp, const LinkPlace& place, std::uint32_t psn);

// To state RTS. kDenied: the policy does not allow it.
Result<void> join_data_qp(ibv_qp& qp, const LinkPlace& place, std::uint32_t psn,
                          const ChannelEnd& other);

// What is under way on it fails, and what is posted from now on.
void fail_data_qp(ibv_qp& qp);

// A random first packet sequence number.
std::uint32_t draw_psn();

}  // namespace isthmus::farmem
