// Agent: the communication manager's protocol, both sides of it.
//
// It turns commands, arriving MADs and the passing of time into MADs to send and calls of its
// listener. It knows nothing of programs, ports, addresses of interfaces or policy: the listener
// decides about each request and each reply.
//
// Invariants:
//   * A duplicate changes nothing: it is answered as the original was, or not at all.
//   * A message that names an exchange counts only when it comes from that exchange's peer.
//   * Every attempt ends: an answer, or the listener learns that there was none.
//   * One answer at most for one message, and none for an answer: no two agents can be made to
//     talk for ever.
//
// Threading: shard-confined. The listener calls no function of the agent from within a call.
// Input: MADs come from the wire; no bytes trip an assertion.
// Spec: InfiniBand Architecture vol. 1, chapter 12.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "cm/exchange.h"
#include "cm/exchange_table.h"
#include "cm/settings.h"
#include "wire/cm_message.h"

namespace isthmus::cm {

struct OutgoingMad {
  wire::IpAddress source;
  wire::IpAddress destination;
  Mad mad;
};

struct IncomingMad {
  wire::IpAddress source;
  wire::IpAddress destination;
  Origin origin = Origin::kForeign;
  std::span<const std::byte> mad;
};

// Why a request or a reply is not wanted. `text`, for people, goes into the private data of a REJ.
struct Refusal {
  wire::RejectReason reason = wire::RejectReason::kConsumerReject;
  std::string text;
};

class AgentListener {
 public:
  virtual ~AgentListener() = default;

  // A program is to be asked: name it in exchange.user and return nothing. Or refuse.
  virtual std::optional<Refusal> on_request(Exchange& exchange, const wire::CmReq& request) = 0;
  // The peer has accepted. Refusing rejects the reply.
  virtual std::optional<Refusal> on_reply(Exchange& exchange, const wire::CmRep& reply) = 0;
  // The passive side has its RTU.
  virtual void on_established(Exchange& exchange) = 0;
  // Rejected by the peer, before the connection was established. The exchange is about to go.
  virtual void on_rejected(Exchange& exchange, wire::RejectReason reason,
                           std::span<const std::byte> private_data) = 0;
  // No answer in time. The exchange is about to go.
  virtual void on_unreachable(Exchange& exchange) = 0;
  // The connection is over. The exchange is about to go into timewait.
  virtual void on_disconnected(Exchange& exchange) = 0;
  virtual void on_timewait_exit(UserHandle user) = 0;

  // The same for unconnected services.
  virtual std::optional<Refusal> on_resolve_request(Exchange& exchange,
                                                    const wire::CmSidrReq& request) = 0;
  virtual void on_resolve_reply(Exchange& exchange, const wire::CmSidrRep& reply) = 0;
};

// Indexed by attribute id minus kReq's.
using CountPerMessage = std::array<std::uint64_t, 11>;

struct AgentCounters {
  CountPerMessage sent{};
  CountPerMessage received{};
  std::uint64_t resent = 0;
  std::uint64_t duplicates = 0;
  std::uint64_t malformed = 0;
  std::uint64_t unexpected = 0;    // Of no exchange, or of one in another state.
  std::uint64_t wrong_source = 0;  // Names an exchange of another peer.
  std::uint64_t refused = 0;       // By the listener, or for lack of room.
};

struct ConnectRequest {
  UserHandle user = 0;
  wire::IpAddress local;
  wire::IpAddress remote;
  std::uint64_t service_id = 0;
  ConnectionValues values;  // What is known of the peer's side is ignored.
  bool end_to_end_flow_control = true;
  bool has_srq = false;  // Our QP has one.
  std::span<const std::byte> private_data;  // At most CmReq::kPrivateBytes, all of it.
};

struct ConnectReply {
  std::uint32_t local_qpn = 0;
  std::uint8_t responder_resources = 0;
  std::uint8_t initiator_depth = 0;
  std::uint8_t rnr_retry_count = 0;  // For the peer's QP.
  bool end_to_end_flow_control = true;
  bool has_srq = false;
  std::span<const std::byte> private_data;  // At most CmRep::kPrivateBytes.
};

struct ResolveAnswer {
  wire::SidrStatus status = wire::SidrStatus::kSuccess;
  std::uint32_t qpn = 0;
  std::uint32_t qkey = 0;
  std::span<const std::byte> private_data;  // At most CmSidrRep::kPrivateBytes.
};

class Agent {
 public:
  Agent(const Settings& settings, ExchangeTable::Random random, std::uint64_t node_guid,
        AgentListener& listener);

  // --- Commands. kInvalid: not in this state. ---

  // REQ. kNoMemory: the table is full.
  Result<ExchangeId> connect(std::uint64_t now_ns, const ConnectRequest& request);
  // REP.
  Result<void> accept(std::uint64_t now_ns, ExchangeId id, const ConnectReply& reply);
  // RTU: the active program is ready.
  Result<void> confirm(std::uint64_t now_ns, ExchangeId id);
  // REJ, of a request or of a reply.
  Result<void> reject(std::uint64_t now_ns, ExchangeId id, wire::RejectReason reason,
                      std::span<const std::byte> private_data);
  // DREQ.
  Result<void> disconnect(std::uint64_t now_ns, ExchangeId id);
  // Data arrived before the RTU did: the connection is as good as established.
  Result<void> data_arrived(std::uint64_t now_ns, ExchangeId id);
  // SIDR_REQ and SIDR_REP.
  Result<ExchangeId> resolve(std::uint64_t now_ns, const ConnectRequest& request);
  Result<void> answer(std::uint64_t now_ns, ExchangeId id, const ResolveAnswer& answer);
  // The program is gone: says to the peer what its state calls for, and tells nobody any more.
  void abandon(std::uint64_t now_ns, ExchangeId id);
  // A connection of before a restart, established. kExists: its id is taken.
  Result<void> restore(const Exchange& established);

  // --- The world ---

  void on_mad(std::uint64_t now_ns, const IncomingMad& incoming);
  void on_timer(std::uint64_t now_ns);
  std::optional<std::uint64_t> next_deadline() const { return table_.next_deadline(); }

  // What is to be sent, in order; empties it.
  std::vector<OutgoingMad> take_outgoing();

  Exchange* find(ExchangeId id) { return table_.find(id); }
  ExchangeTable& table() { return table_; }
  const AgentCounters& counters() const { return counters_; }

 private:
  // What every handler of a message needs besides the message.
  struct Context {
    std::uint64_t now_ns;
    const IncomingMad& incoming;
    std::uint64_t transaction_id;
  };

  // agent.cc
  void send(const wire::IpAddress& source, const wire::IpAddress& destination,
            const wire::CmMessage& message, std::uint64_t transaction_id);
  void send(Exchange& exchange, const wire::CmMessage& message);  // And keeps it.
  void resend(const Exchange& exchange);
  void answer_with(const Context& context, const wire::CmMessage& message);
  void start_attempts(std::uint64_t now_ns, Exchange& exchange, std::uint64_t patience_ns);
  void give_up(std::uint64_t now_ns, Exchange& exchange);
  void close(std::uint64_t now_ns, Exchange& exchange);  // Into timewait.
  bool is_from_peer(const Context& context, const Exchange& exchange, std::uint32_t remote_id);
  void handle(const Context& context, const wire::CmMra& mra);
  void handle(const Context& context, const wire::CmLap& lap);
  void handle(const Context& context, const wire::CmApr& apr);

  // agent_connect.cc
  void handle(const Context& context, const wire::CmReq& request);
  void handle(const Context& context, const wire::CmRep& reply);
  void handle(const Context& context, const wire::CmRtu& ready);
  void handle_duplicate(const Context& context, Exchange& exchange);
  std::optional<Refusal> admit_request(const Context& context, Exchange& exchange,
                                       const wire::CmReq& request);
  void refuse_request(const Context& context, std::uint32_t remote_id, const Refusal& refusal);
  void send_mra(Exchange& exchange, wire::MraMessage message);

  // agent_close.cc
  void handle(const Context& context, const wire::CmRej& reject);
  void handle(const Context& context, const wire::CmDreq& request);
  void handle(const Context& context, const wire::CmDrep& reply);
  void send_reject(Exchange& exchange, wire::RejectedMessage message, wire::RejectReason reason,
                   std::span<const std::byte> private_data);
  void send_disconnect(std::uint64_t now_ns, Exchange& exchange);

  // agent_sidr.cc
  void handle(const Context& context, const wire::CmSidrReq& request);
  void handle(const Context& context, const wire::CmSidrRep& reply);

  const Settings settings_;
  ExchangeTable::Random random_;
  const std::uint64_t node_guid_;
  AgentListener& listener_;
  ExchangeTable table_;
  std::vector<OutgoingMad> outgoing_;
  AgentCounters counters_;
};

// Copies as much as fits; the rest of the field stays zero.
template <std::size_t kSize>
wire::PrivateData<kSize> private_data_of(std::span<const std::byte> bytes) {
  wire::PrivateData<kSize> field{};
  std::copy_n(bytes.begin(), std::min(bytes.size(), kSize), field.begin());
  return field;
}

}  // namespace isthmus::cm
