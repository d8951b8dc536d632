// Exchange: one connection as the protocol sees it, from the first message to the last.
//
// Primer (active side left, passive side right):
//
//     kRequestSent      -- REQ -->   kRequestReceived    the program is asked
//     kReplyReceived    <-- REP --   kReplySent          it has accepted
//     kEstablished      -- RTU -->   kEstablished
//     kDisconnectSent   -- DREQ ->   timewait
//     timewait          <- DREP --
//
//     kResolveSent   -- SIDR_REQ ->  kResolveReceived
//     gone           <- SIDR_REP --  kResolveAnswered    kept for a while, to be repeated
//
// A refused request is kept as kRejected for the same reason. Timewait is no state here but a
// smaller record of its own (exchange_table.h).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "wire/cm_message.h"
#include "wire/ip.h"

namespace isthmus::cm {

// The local communication id, which is also the request id of a SIDR exchange. Random, never 0.
enum class ExchangeId : std::uint32_t { kNone = 0 };

// Whoever the exchange works for; 0: nobody is left to tell.
using UserHandle = std::uint32_t;

enum class ExchangeState : std::uint8_t {
  kNew,
  kRequestSent,
  kReplyReceived,
  kRequestReceived,
  kReplySent,
  kEstablished,
  kDisconnectSent,
  kRejected,
  kResolveSent,
  kResolveReceived,
  kResolveAnswered,
};

enum class Role : std::uint8_t { kActive, kPassive };

// How a message came in.
enum class Origin : std::uint8_t {
  kForeign,    // No mark: the sender's host, if it has a policy, did not apply it here.
  kMarked,     // The daemon of the sender's host has passed it.
  kLoopback,   // From a program of this daemon.
};

using Mad = std::array<std::byte, wire::kMadBytes>;

// What the two sides tell each other about their queue pairs.
struct ConnectionValues {
  wire::CmTransport transport = wire::CmTransport::kRc;
  std::uint8_t extended_transport = 0;
  std::uint32_t local_qpn = 0;
  std::uint32_t remote_qpn = 0;
  // The Starting PSN of a message is where its receiver's send queue begins (InfiniBand 12.7.31).
  std::uint32_t rq_psn = 0;  // What we told.
  std::uint32_t sq_psn = 0;  // What we were told.
  // READs and atomics in flight: ours served by the peer (depth), the peer's served by us.
  std::uint8_t initiator_depth = 0;
  std::uint8_t responder_resources = 0;
  std::uint8_t path_mtu = 0;         // ibv_mtu.
  std::uint8_t retry_count = 0;      // Of our QP.
  std::uint8_t rnr_retry_count = 0;  // Of our QP: what the peer asked for.
  std::uint8_t ack_timeout = 0;      // Of our QP, a time code.
  std::uint8_t traffic_class = 0;
  std::uint8_t hop_limit = 64;
  std::uint32_t flow_label = 0;
  std::uint32_t qkey = 0;            // Of a SIDR answer.
  bool srq = false;                  // The peer's QP has one.
};

struct Exchange {
  ExchangeId id = ExchangeId::kNone;
  std::uint32_t remote_id = 0;  // 0 until the peer has named itself.
  ExchangeState state = ExchangeState::kNew;
  Role role = Role::kActive;
  Origin origin = Origin::kForeign;  // Of the message that made the peer known.
  UserHandle user = 0;
  // The user of the other end, for an exchange between two programs of this daemon; else 0.
  UserHandle neighbour = 0;

  wire::IpAddress local;
  wire::IpAddress remote;
  std::uint64_t service_id = 0;
  ConnectionValues values;

  // The message last sent, to be sent again: by the timer, or for a duplicate.
  Mad message{};
  std::uint64_t transaction_id = 0;     // Of the message last received or sent, for the answer.
  std::uint64_t retry_after_ns = 0;     // The wait before the next attempt; doubles.
  std::uint64_t first_sent_ns = 0;
  std::uint64_t give_up_ns = 0;         // Absolute.
  std::uint64_t peer_patience_ns = 0;   // How long the peer says to try; from its REQ.
  std::uint64_t deadline_ns = 0;        // Of the table's timer; 0: none.
};

}  // namespace isthmus::cm
