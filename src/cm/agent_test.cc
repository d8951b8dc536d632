// Goal: every transition of the protocol: the message that is right, the one that comes twice, too
// early, too late, from somebody else, and the one that never comes.
// Method: one agent, whose peer is the test: it sends messages field by field and looks at the
// answers. Time is a number.
#include "cm/agent.h"

#include <gtest/gtest.h>

#include <random>

#include "cm/testing.h"

namespace isthmus::cm {
namespace {

using wire::RejectReason;

constexpr std::uint32_t kPeerId = 0x5000'0001;
constexpr std::uint32_t kPeerQpn = 0x77;
constexpr std::uint32_t kOurQpn = 0x33;
constexpr UserHandle kUser = 9;

struct Note {
  std::string what;
  UserHandle user;
  RejectReason reason{};
  friend bool operator==(const Note&, const Note&) = default;
};

class Recorder : public AgentListener {
 public:
  std::vector<Note> notes;
  std::optional<Refusal> refuse_request;
  std::optional<Refusal> refuse_reply;

  std::optional<Refusal> on_request(Exchange& exchange, const wire::CmReq&) override {
    if (!refuse_request) exchange.user = kUser;
    notes.push_back({"request", exchange.user});
    return refuse_request;
  }
  std::optional<Refusal> on_reply(Exchange& exchange, const wire::CmRep&) override {
    notes.push_back({"reply", exchange.user});
    return refuse_reply;
  }
  void on_established(Exchange& e) override { notes.push_back({"established", e.user}); }
  void on_rejected(Exchange& e, RejectReason reason, std::span<const std::byte>) override {
    notes.push_back({"rejected", e.user, reason});
  }
  void on_unreachable(Exchange& e) override { notes.push_back({"unreachable", e.user}); }
  void on_disconnected(Exchange& e) override { notes.push_back({"disconnected", e.user}); }
  void on_timewait_exit(UserHandle user) override { notes.push_back({"timewait exit", user}); }
  std::optional<Refusal> on_resolve_request(Exchange& exchange, const wire::CmSidrReq&) override {
    exchange.user = kUser;
    notes.push_back({"resolve request", exchange.user});
    return refuse_request;
  }
  void on_resolve_reply(Exchange& exchange, const wire::CmSidrRep&) override {
    notes.push_back({"resolve reply", exchange.user});
  }
};

class AgentTest : public testing::Test {
 protected:
  void receive(const wire::CmMessage& message, const wire::IpAddress& from) {
    Mad mad;
    wire::encode_cm(message, kTransaction, mad);
    agent.on_mad(now, {.source = from, .destination = us, .mad = mad});
  }
  void receive(const wire::CmMessage& message) { receive(message, peer); }

  // The one message that was sent since the last look; of type T.
  template <class T>
  T sent() {
    const auto outgoing = agent.take_outgoing();
    EXPECT_EQ(outgoing.size(), 1u);
    if (outgoing.empty()) return {};
    EXPECT_EQ(outgoing[0].source, us);
    EXPECT_EQ(outgoing[0].destination, peer);
    transaction = wire::decode_mad_header(outgoing[0].mad)->transaction_id;
    const auto message = wire::decode_cm(outgoing[0].mad);
    EXPECT_TRUE(std::holds_alternative<T>(*message)) << wire::name_of(*message);
    const T* found = std::get_if<T>(&*message);
    return found ? *found : T{};
  }
  void expect_silence() { EXPECT_TRUE(agent.take_outgoing().empty()); }
  std::string last_note() {
    if (recorder.notes.empty()) return "nothing";
    const std::string what = recorder.notes.back().what;
    recorder.notes.clear();
    return what;
  }
  void advance(std::uint64_t ns) {
    now += ns;
    agent.on_timer(now);
  }
  // Lets time pass in small steps until the agent has no timer; returns the messages sent.
  std::size_t run_out() {
    std::size_t count = 0;
    while (const auto deadline = agent.next_deadline()) {
      now = std::max(now, *deadline);
      agent.on_timer(now);
      count += agent.take_outgoing().size();
    }
    return count;
  }

  wire::CmReq request() const {
    return {.local_comm_id = kPeerId,
            .service_id = 0x0106'1234,
            .local_qpn = kPeerQpn,
            .responder_resources = 2,
            .initiator_depth = 5,
            .starting_psn = 100,
            .local_cm_response_timeout = 20,
            .path_mtu = 3,
            .max_cm_retries = 15,
            .primary = {.local_gid = peer, .remote_gid = us, .local_ack_timeout = 19}};
  }
  wire::CmRep reply(ExchangeId id) const {
    return {.local_comm_id = kPeerId,
            .remote_comm_id = static_cast<std::uint32_t>(id),
            .local_qpn = kPeerQpn,
            .starting_psn = 200,
            .responder_resources = 1,
            .initiator_depth = 1,
            .target_ack_delay = 15};
  }
  wire::CmRtu ready(ExchangeId id) const { return {kPeerId, static_cast<std::uint32_t>(id), {}}; }
  wire::CmDreq dreq(ExchangeId id) const {
    return {kPeerId, static_cast<std::uint32_t>(id), kOurQpn, {}};
  }
  wire::CmDrep drep(ExchangeId id) const { return {kPeerId, static_cast<std::uint32_t>(id), {}}; }

  // Our ids in each state.
  ExchangeId request_sent() {
    const ConnectRequest connect{.user = kUser,
                                 .local = us,
                                 .remote = peer,
                                 .service_id = 0x0106'1234,
                                 .values = {.local_qpn = kOurQpn,
                                            .initiator_depth = 4,
                                            .responder_resources = 4,
                                            .path_mtu = 3,
                                            .ack_timeout = 17}};
    const Result<ExchangeId> id = agent.connect(now, connect);
    EXPECT_TRUE(id);
    EXPECT_EQ(sent<wire::CmReq>().local_comm_id, static_cast<std::uint32_t>(*id));
    return *id;
  }
  ExchangeId reply_received() {
    const ExchangeId id = request_sent();
    receive(reply(id));
    EXPECT_EQ(last_note(), "reply");
    expect_silence();
    return id;
  }
  ExchangeId established_active() {
    const ExchangeId id = reply_received();
    EXPECT_TRUE(agent.confirm(now, id));
    EXPECT_EQ(sent<wire::CmRtu>().remote_comm_id, kPeerId);
    return id;
  }
  ExchangeId request_received() {
    receive(request());
    EXPECT_EQ(last_note(), "request");
    expect_silence();
    return agent.table().find_request(peer, kPeerId)->id;
  }
  ExchangeId reply_sent() {
    const ExchangeId id = request_received();
    EXPECT_TRUE(agent.accept(now, id, {.local_qpn = kOurQpn}));
    EXPECT_EQ(sent<wire::CmRep>().local_comm_id, static_cast<std::uint32_t>(id));
    return id;
  }
  ExchangeId established_passive() {
    const ExchangeId id = reply_sent();
    receive(ready(id));
    EXPECT_EQ(last_note(), "established");
    return id;
  }

  static constexpr std::uint64_t kTransaction = 0x1234'5678'9abc'def0;
  const wire::IpAddress us = ip("10.0.0.1");
  const wire::IpAddress peer = ip("10.0.0.2");
  const wire::IpAddress stranger = ip("10.0.0.66");
  Settings settings;
  Recorder recorder;
  std::mt19937_64 random{5};
  Agent agent{settings, [this] { return random(); }, 0xabcd, recorder};
  std::uint64_t now = kSecond;
  std::uint64_t transaction = 0;
};

// --- Active side -----------------------------------------------------------------------------

TEST_F(AgentTest, TheActiveSideTakesTheReplysValues) {
  const ExchangeId id = established_active();
  const Exchange* exchange = agent.find(id);
  EXPECT_EQ(exchange->state, ExchangeState::kEstablished);
  EXPECT_EQ(exchange->values.remote_qpn, kPeerQpn);
  EXPECT_EQ(exchange->values.sq_psn, 200u);
  EXPECT_EQ(exchange->values.initiator_depth, 1);  // What the peer serves, not what we wanted.
  EXPECT_EQ(exchange->values.ack_timeout, 17);     // 0.54 s, and 0.13 s are not close.
  EXPECT_FALSE(agent.next_deadline());
}

TEST_F(AgentTest, AnUnansweredRequestIsRepeatedAndGivenUp) {
  const ExchangeId id = request_sent();
  const std::uint64_t start = now;
  // Expect: the very same message, after 250 ms, then after 500 ms more.
  advance(249 * kMillisecond);
  expect_silence();
  advance(kMillisecond);
  EXPECT_EQ(sent<wire::CmReq>().local_comm_id, static_cast<std::uint32_t>(id));
  advance(499 * kMillisecond);
  expect_silence();
  advance(kMillisecond);
  sent<wire::CmReq>();
  const std::size_t more = run_out();
  EXPECT_EQ(last_note(), "unreachable");
  EXPECT_EQ(now - start, settings.connect_give_up_ns);
  EXPECT_LT(more, 12u);
  EXPECT_EQ(agent.find(id), nullptr);
}

TEST_F(AgentTest, AnMraBuysTime) {
  const ExchangeId id = request_sent();
  const std::uint64_t start = now;
  receive(wire::CmMra{.local_comm_id = kPeerId,
                      .remote_comm_id = static_cast<std::uint32_t>(id),
                      .message_mraed = wire::MraMessage::kReq,
                      .service_timeout = 24});
  run_out();
  EXPECT_EQ(last_note(), "unreachable");
  EXPECT_EQ(now - start, time_of_code_ns(24));
}

TEST_F(AgentTest, MrasWithoutEndDoNot) {
  const ExchangeId id = request_sent();
  const std::uint64_t start = now;
  while (agent.find(id) != nullptr) {
    receive(wire::CmMra{.local_comm_id = kPeerId,
                        .remote_comm_id = static_cast<std::uint32_t>(id),
                        .service_timeout = 31});
    now = *agent.next_deadline();
    agent.on_timer(now);
    agent.take_outgoing();
  }
  EXPECT_EQ(now - start, settings.max_patience_ns);
}

TEST_F(AgentTest, ASecondReplyGetsWhatTheFirstGot) {
  ExchangeId id = reply_received();
  receive(reply(id));  // The program is still busy.
  const auto mra = sent<wire::CmMra>();
  EXPECT_EQ(mra.message_mraed, wire::MraMessage::kRep);
  EXPECT_EQ(mra.service_timeout, 24);
  EXPECT_EQ(last_note(), "nothing");
  ASSERT_TRUE(agent.confirm(now, id));
  sent<wire::CmRtu>();
  receive(reply(id));  // The RTU was lost.
  EXPECT_EQ(sent<wire::CmRtu>().local_comm_id, static_cast<std::uint32_t>(id));
  EXPECT_EQ(last_note(), "nothing");
}

TEST_F(AgentTest, AReplyToNothingIsRejected) {
  receive(reply(ExchangeId{4711}));
  const auto reject = sent<wire::CmRej>();
  EXPECT_EQ(reject.reason, RejectReason::kInvalidCommId);
  EXPECT_EQ(reject.message_rejected, wire::RejectedMessage::kRep);
  EXPECT_EQ(reject.remote_comm_id, kPeerId);
  EXPECT_EQ(transaction, kTransaction);
}

TEST_F(AgentTest, AReplyThatIsNotWantedIsRejected) {
  recorder.refuse_reply = Refusal{RejectReason::kConsumerReject, "no"};
  const ExchangeId id = request_sent();
  receive(reply(id));
  EXPECT_EQ(sent<wire::CmRej>().message_rejected, wire::RejectedMessage::kRep);
  EXPECT_EQ(agent.find(id), nullptr);
  EXPECT_NE(agent.table().find_timewait(id), nullptr);
  receive(reply(id));  // Late duplicate: the rejection is not repeated without end.
  expect_silence();
}

TEST_F(AgentTest, OnlyThePeerAnswers) {
  const ExchangeId id = request_sent();
  receive(reply(id), stranger);
  receive(wire::CmRej{.remote_comm_id = static_cast<std::uint32_t>(id)}, stranger);
  receive(wire::CmMra{.remote_comm_id = static_cast<std::uint32_t>(id)}, stranger);
  expect_silence();
  EXPECT_EQ(last_note(), "nothing");
  EXPECT_EQ(agent.counters().wrong_source, 3u);
  EXPECT_EQ(agent.find(id)->state, ExchangeState::kRequestSent);
}

TEST_F(AgentTest, ARejectionEndsTheAttempt) {
  const ExchangeId id = request_sent();
  receive(wire::CmRej{.remote_comm_id = static_cast<std::uint32_t>(id),
                      .reason = RejectReason::kInvalidServiceId});
  ASSERT_EQ(recorder.notes.size(), 1u);
  EXPECT_EQ(recorder.notes[0], (Note{"rejected", kUser, RejectReason::kInvalidServiceId}));
  EXPECT_EQ(agent.find(id), nullptr);
  EXPECT_FALSE(agent.next_deadline());
}

TEST_F(AgentTest, TheActiveProgramMayRefuseTheReply) {
  const ExchangeId id = reply_received();
  ASSERT_TRUE(agent.reject(now, id, RejectReason::kConsumerReject, {}));
  EXPECT_EQ(sent<wire::CmRej>().message_rejected, wire::RejectedMessage::kRep);
  // Its queue pair, and the peer's, may try again at once.
  const ExchangeId again = request_sent();
  receive(reply(again));
  EXPECT_EQ(last_note(), "reply");
}

// --- Passive side ----------------------------------------------------------------------------

TEST_F(AgentTest, ThePassiveSideTakesTheRequestsValues) {
  const ExchangeId id = established_passive();
  const ConnectionValues& values = agent.find(id)->values;
  EXPECT_EQ(values.remote_qpn, kPeerQpn);
  EXPECT_EQ(values.sq_psn, 100u);
  EXPECT_EQ(values.ack_timeout, 19);
  EXPECT_EQ(agent.find(id)->role, Role::kPassive);
}

TEST_F(AgentTest, ASecondRequestGetsWhatTheFirstGot) {
  const ExchangeId id = request_received();
  receive(request());  // The program thinks.
  EXPECT_EQ(sent<wire::CmMra>().message_mraed, wire::MraMessage::kReq);
  ASSERT_TRUE(agent.accept(now, id, {.local_qpn = kOurQpn}));
  const wire::CmRep first = sent<wire::CmRep>();
  receive(request());  // The REP was lost.
  EXPECT_EQ(sent<wire::CmRep>(), first);
  receive(ready(id));
  EXPECT_EQ(last_note(), "established");
  receive(request());  // It was only late.
  expect_silence();
  EXPECT_EQ(last_note(), "nothing");
  EXPECT_EQ(agent.counters().duplicates, 3u);
}

TEST_F(AgentTest, ARefusalIsRepeatedAndThenForgotten) {
  const ExchangeId id = request_received();
  ASSERT_TRUE(agent.reject(now, id, RejectReason::kConsumerReject,
                           std::as_bytes(std::span{"no", 2})));
  const wire::CmRej first = sent<wire::CmRej>();
  EXPECT_EQ(first.reason, RejectReason::kConsumerReject);
  receive(request());
  EXPECT_EQ(sent<wire::CmRej>(), first);
  EXPECT_EQ(last_note(), "nothing");  // The program is not asked again.
  advance(settings.answer_kept_ns);
  EXPECT_EQ(agent.table().size(), 0u);
}

TEST_F(AgentTest, AnUnansweredReplyIsRepeatedAndGivenUp) {
  const ExchangeId id = reply_sent();
  advance(250 * kMillisecond);
  sent<wire::CmRep>();
  while (agent.find(id) != nullptr) {
    now = *agent.next_deadline();
    agent.take_outgoing();
    agent.on_timer(now);
  }
  EXPECT_EQ(last_note(), "unreachable");
  EXPECT_EQ(sent<wire::CmRej>().reason, RejectReason::kTimeout);
}

TEST_F(AgentTest, AHostilePatienceIsCut) {
  wire::CmReq req = request();
  req.local_cm_response_timeout = 31;  // 2.4 hours, 16 times.
  receive(req);
  const ExchangeId id = agent.table().find_request(peer, kPeerId)->id;
  ASSERT_TRUE(agent.accept(now, id, {}));
  EXPECT_LE(agent.find(id)->give_up_ns, now + settings.connect_give_up_ns);
}

TEST_F(AgentTest, DataStandsInForALostRtu) {
  const ExchangeId id = reply_sent();
  ASSERT_TRUE(agent.data_arrived(now, id));
  EXPECT_EQ(last_note(), "established");
  receive(ready(id));
  EXPECT_EQ(last_note(), "nothing");
  EXPECT_FALSE(agent.next_deadline());
}

TEST_F(AgentTest, RequestsThatCannotBeAreRefused) {
  wire::CmReq req = request();
  req.path_mtu = 0;
  receive(req);
  EXPECT_EQ(sent<wire::CmRej>().reason, RejectReason::kInvalidMtu);
  req = request();
  req.path_mtu = 6;
  receive(req);
  EXPECT_EQ(sent<wire::CmRej>().reason, RejectReason::kInvalidMtu);
  req = request();
  req.transport = wire::CmTransport::kRd;
  receive(req);
  EXPECT_EQ(sent<wire::CmRej>().reason, RejectReason::kInvalidTransportType);
  req = request();
  req.primary.local_gid = stranger;
  receive(req);
  EXPECT_EQ(sent<wire::CmRej>().reason, RejectReason::kInvalidGid);
  EXPECT_EQ(last_note(), "nothing");
  EXPECT_EQ(agent.table().size(), 0u);
}

TEST_F(AgentTest, AnotherConnectionOfOneQueuePairIsStale) {
  const ExchangeId id = established_passive();
  wire::CmReq req = request();
  req.local_comm_id = kPeerId + 1;
  receive(req);
  // Expect: refused, and the old connection taken down.
  const auto outgoing = agent.take_outgoing();
  ASSERT_EQ(outgoing.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<wire::CmDreq>(*wire::decode_cm(outgoing[0].mad)));
  EXPECT_EQ(std::get<wire::CmRej>(*wire::decode_cm(outgoing[1].mad)).reason,
            RejectReason::kStaleConnection);
  EXPECT_EQ(agent.find(id)->state, ExchangeState::kDisconnectSent);
  // Once that is done, the queue pair is welcome.
  receive(drep(id));
  EXPECT_EQ(last_note(), "disconnected");
  receive(req);
  EXPECT_EQ(last_note(), "request");
  // The end of the old connection's timewait takes nothing from the new one.
  advance(settings.timewait_ns);
  EXPECT_NE(agent.table().find_queue_pair(peer, kPeerQpn), nullptr);
}

TEST_F(AgentTest, ARequestOfAConnectionThatIsOverIsStale) {
  const ExchangeId id = established_passive();
  receive(dreq(id));
  sent<wire::CmDrep>();
  receive(request());
  EXPECT_EQ(sent<wire::CmRej>().reason, RejectReason::kStaleConnection);
}

TEST_F(AgentTest, ThePeersTimeoutEndsARequest) {
  const ExchangeId id = request_received();
  receive(wire::CmRej{.local_comm_id = kPeerId,
                      .remote_comm_id = 0,
                      .reason = RejectReason::kTimeout});
  EXPECT_EQ(last_note(), "rejected");
  EXPECT_EQ(agent.find(id), nullptr);
}

TEST_F(AgentTest, AFullTableRefuses) {
  settings.max_exchanges = 3;
  Agent small{settings, [this] { return random(); }, 1, recorder};
  for (std::uint32_t i = 0; i < 5; ++i) {
    wire::CmReq req = request();
    req.local_comm_id = kPeerId + i;
    req.local_qpn = kPeerQpn + i;
    Mad mad;
    wire::encode_cm(req, i, mad);
    small.on_mad(now, {.source = peer, .destination = us, .mad = mad});
  }
  EXPECT_EQ(recorder.notes.size(), 3u);
  const auto outgoing = small.take_outgoing();
  ASSERT_EQ(outgoing.size(), 2u);
  EXPECT_EQ(std::get<wire::CmRej>(*wire::decode_cm(outgoing[0].mad)).reason,
            RejectReason::kNoResources);
  EXPECT_FALSE(small.connect(now, {.local = us, .remote = peer}));
}

// --- The end ---------------------------------------------------------------------------------

TEST_F(AgentTest, DisconnectsEitherWay) {
  const ExchangeId id = established_active();
  ASSERT_TRUE(agent.disconnect(now, id));
  const auto out = sent<wire::CmDreq>();
  EXPECT_EQ(out.remote_qpn, kPeerQpn);
  EXPECT_EQ(out.remote_comm_id, kPeerId);
  EXPECT_FALSE(agent.disconnect(now, id));
  receive(drep(id));
  EXPECT_EQ(last_note(), "disconnected");
  EXPECT_EQ(agent.find(id), nullptr);
  advance(settings.timewait_ns);
  EXPECT_EQ(last_note(), "timewait exit");
  EXPECT_FALSE(agent.next_deadline());
}

TEST_F(AgentTest, ADisconnectRequestIsAnsweredEachTime) {
  const ExchangeId id = established_passive();
  receive(dreq(id));
  EXPECT_EQ(sent<wire::CmDrep>().remote_comm_id, kPeerId);
  EXPECT_EQ(transaction, kTransaction);
  EXPECT_EQ(last_note(), "disconnected");
  receive(dreq(id));  // Our DREP was lost.
  sent<wire::CmDrep>();
  EXPECT_EQ(last_note(), "nothing");
  advance(settings.timewait_ns);
  last_note();
  receive(dreq(id));  // Long over.
  sent<wire::CmDrep>();
}

TEST_F(AgentTest, ADisconnectNamesOurQueuePair) {
  const ExchangeId id = established_passive();
  wire::CmDreq wrong = dreq(id);
  wrong.remote_qpn = kOurQpn + 1;
  receive(wrong);
  wrong = dreq(id);
  wrong.local_comm_id = kPeerId + 1;
  receive(wrong);
  receive(dreq(id), stranger);
  expect_silence();
  EXPECT_EQ(agent.find(id)->state, ExchangeState::kEstablished);
}

TEST_F(AgentTest, BothMayDisconnectAtOnce) {
  const ExchangeId id = established_active();
  ASSERT_TRUE(agent.disconnect(now, id));
  sent<wire::CmDreq>();
  receive(dreq(id));
  sent<wire::CmDrep>();
  EXPECT_EQ(last_note(), "disconnected");
  receive(drep(id));
  EXPECT_EQ(last_note(), "nothing");
}

TEST_F(AgentTest, ADisconnectMayOvertakeTheRtu) {
  const ExchangeId id = reply_sent();
  receive(dreq(id));
  sent<wire::CmDrep>();
  EXPECT_EQ(last_note(), "disconnected");
}

TEST_F(AgentTest, ADisconnectMeetsEveryState) {
  // Before the reply: the peer cannot know the id; nothing happens.
  const ExchangeId asked = request_received();
  receive(dreq(asked));
  expect_silence();
  EXPECT_EQ(agent.find(asked)->state, ExchangeState::kRequestReceived);
  agent.abandon(now, asked);
  sent<wire::CmRej>();
  // Before our RTU.
  const ExchangeId replied = reply_received();
  receive(dreq(replied));
  sent<wire::CmDrep>();
  EXPECT_EQ(last_note(), "disconnected");
}

TEST_F(AgentTest, AnUnansweredDisconnectEnds) {
  const ExchangeId id = established_active();
  const std::uint64_t start = now;
  ASSERT_TRUE(agent.disconnect(now, id));
  while (agent.find(id) != nullptr) {
    now = *agent.next_deadline();
    agent.on_timer(now);
  }
  EXPECT_EQ(last_note(), "disconnected");
  EXPECT_EQ(now - start, settings.disconnect_give_up_ns);
}

TEST_F(AgentTest, ALateRejectionEndsAnEstablishedConnection) {
  const ExchangeId id = established_active();
  receive(wire::CmRej{.local_comm_id = kPeerId,
                      .remote_comm_id = static_cast<std::uint32_t>(id),
                      .message_rejected = wire::RejectedMessage::kRep,
                      .reason = RejectReason::kTimeout});
  EXPECT_EQ(last_note(), "disconnected");
}

TEST_F(AgentTest, AnAbandonedExchangeTellsThePeerAndNobodyElse) {
  agent.abandon(now, request_sent());
  EXPECT_EQ(sent<wire::CmRej>().reason, RejectReason::kTimeout);
  agent.abandon(now, reply_received());
  EXPECT_EQ(sent<wire::CmRej>().reason, RejectReason::kConsumerReject);
  const ExchangeId up = established_active();
  agent.abandon(now, up);
  sent<wire::CmDreq>();
  advance(250 * kMillisecond);
  sent<wire::CmDreq>();  // Until the peer knows.
  receive(drep(up));
  ASSERT_EQ(recorder.notes.size(), 1u);
  EXPECT_EQ(recorder.notes[0], (Note{"disconnected", 0}));
  recorder.notes.clear();
  advance(settings.timewait_ns);
  EXPECT_EQ(last_note(), "nothing");
}

TEST_F(AgentTest, ThereIsNoAlternatePath) {
  const ExchangeId id = established_passive();
  receive(wire::CmLap{.local_comm_id = kPeerId,
                      .remote_comm_id = static_cast<std::uint32_t>(id)});
  EXPECT_EQ(sent<wire::CmApr>().status, wire::AprStatus::kUnsupported);
  receive(wire::CmLap{.local_comm_id = kPeerId, .remote_comm_id = 1});
  EXPECT_EQ(sent<wire::CmApr>().status, wire::AprStatus::kInvalidCommId);
  receive(wire::CmApr{});
  expect_silence();
}

// --- Service resolution ----------------------------------------------------------------------

TEST_F(AgentTest, ResolvesAService) {
  const Result<ExchangeId> id =
      agent.resolve(now, {.user = kUser, .local = us, .remote = peer, .service_id = 5});
  ASSERT_TRUE(id);
  EXPECT_EQ(sent<wire::CmSidrReq>().request_id, static_cast<std::uint32_t>(*id));
  advance(250 * kMillisecond);
  sent<wire::CmSidrReq>();
  receive(wire::CmSidrRep{.request_id = static_cast<std::uint32_t>(*id)}, stranger);
  EXPECT_EQ(last_note(), "nothing");
  receive(wire::CmSidrRep{.request_id = static_cast<std::uint32_t>(*id), .qpn = 7});
  EXPECT_EQ(last_note(), "resolve reply");
  receive(wire::CmSidrRep{.request_id = static_cast<std::uint32_t>(*id), .qpn = 7});
  EXPECT_EQ(last_note(), "nothing");
}

TEST_F(AgentTest, AnswersAServiceRequestOnce) {
  const wire::CmSidrReq req{.request_id = 77, .service_id = 5};
  receive(req);
  EXPECT_EQ(last_note(), "resolve request");
  receive(req);
  expect_silence();
  const ExchangeId id = agent.table().find_request(peer, 77)->id;
  ASSERT_TRUE(agent.answer(now, id, {.qpn = 3, .qkey = 4}));
  const auto answer = sent<wire::CmSidrRep>();
  EXPECT_EQ(answer.qpn, 3u);
  EXPECT_EQ(answer.service_id, 5u);
  receive(req);  // The answer was lost.
  EXPECT_EQ(sent<wire::CmSidrRep>(), answer);
  EXPECT_EQ(last_note(), "nothing");
  advance(settings.answer_kept_ns);
  EXPECT_EQ(agent.table().size(), 0u);
}

TEST_F(AgentTest, AnUnknownServiceIsUnsupported) {
  recorder.refuse_request = Refusal{RejectReason::kInvalidServiceId, {}};
  receive(wire::CmSidrReq{.request_id = 77});
  EXPECT_EQ(sent<wire::CmSidrRep>().status, wire::SidrStatus::kUnsupported);
}

// --- Commands out of place, and bytes that are nothing ---------------------------------------

TEST_F(AgentTest, CommandsOutOfPlaceFail) {
  const ExchangeId id = request_sent();
  EXPECT_FALSE(agent.accept(now, id, {}));
  EXPECT_FALSE(agent.confirm(now, id));
  EXPECT_FALSE(agent.reject(now, id, RejectReason::kConsumerReject, {}));
  EXPECT_FALSE(agent.disconnect(now, id));
  EXPECT_FALSE(agent.data_arrived(now, id));
  EXPECT_FALSE(agent.answer(now, id, {}));
  EXPECT_FALSE(agent.accept(now, ExchangeId{1}, {}));
  agent.abandon(now, ExchangeId{1});
  expect_silence();
}

TEST_F(AgentTest, NonsenseIsCounted) {
  const std::array<std::byte, 256> zeros{};
  agent.on_mad(now, {.source = peer, .destination = us, .mad = zeros});
  agent.on_mad(now, {.source = peer, .destination = us, .mad = std::span(zeros).first(10)});
  EXPECT_EQ(agent.counters().malformed, 2u);
  expect_silence();
}

}  // namespace
}  // namespace isthmus::cm
