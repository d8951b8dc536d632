// Goal: the life of an id as programs see it: states, events, errors, and the values for the QP.
// Method: two hosts, each with its manager; the test carries the MADs across, every one of them,
// at once, and looks at the events on both sides.
#include "cm/manager.h"

#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include <cstring>
#include <string>

#include "cm/testing.h"

namespace isthmus::cm {
namespace {

constexpr std::uint16_t kPort = 7471;
constexpr std::uint32_t kQpnOfA = 0x111;
constexpr std::uint32_t kQpnOfB = 0x222;
constexpr ClientId kClientOfA = 10;
constexpr ClientId kClientOfB = 20;

std::span<const std::byte> bytes(std::string_view text) {
  return std::as_bytes(std::span{text.data(), text.size()});
}

std::string text_of(const std::vector<std::byte>& data) {
  const std::string all(reinterpret_cast<const char*>(data.data()), data.size());
  return all.substr(0, all.find('\0'));
}

class ManagerTest : public testing::Test {
 protected:
  // Carries MADs until there are none.
  void run(std::uint64_t now_ns = 0) {
    for (int round = 0; round < 20; ++round) {
      const auto from_a = a.manager.take_outgoing();
      const auto from_b = b.manager.take_outgoing();
      if (from_a.empty() && from_b.empty()) return;
      for (const OutgoingMad& m : from_a) deliver(now_ns, m);
      for (const OutgoingMad& m : from_b) deliver(now_ns, m);
    }
    FAIL() << "the two never stop talking";
  }
  void deliver(std::uint64_t now_ns, const OutgoingMad& m) {
    FakeHost& host = a.addresses.find(m.destination) ? a : b;
    const bool loopback = host.addresses.find(m.source).has_value();
    host.manager.on_mad(now_ns, {.source = m.source,
                                 .destination = m.destination,
                                 .origin = loopback ? Origin::kLoopback : Origin::kForeign,
                                 .mad = m.mad});
  }
  static Event only_event(FakeHost& host) {
    std::vector<Event> events = host.manager.take_events();
    EXPECT_EQ(events.size(), 1u);
    return events.empty() ? Event{} : events.back();
  }
  IdHandle listen(FakeHost& host, wire::PortSpace space = wire::PortSpace::kTcp,
                  std::int32_t backlog = 5) {
    const IdHandle listener = host.manager.create_id(kClientOfB, space, 0);
    EXPECT_TRUE(host.manager.bind(listener, at("0.0.0.0", kPort)));
    EXPECT_TRUE(host.manager.listen(listener, backlog));
    return listener;
  }
  IdHandle resolved(FakeHost& host, std::string_view to,
                    wire::PortSpace space = wire::PortSpace::kTcp) {
    const IdHandle id = host.manager.create_id(kClientOfA, space, 0);
    EXPECT_TRUE(host.manager.resolve_address(id, std::nullopt, at(to, kPort)));
    EXPECT_EQ(only_event(host).type, EventType::kAddressResolved);
    EXPECT_TRUE(host.manager.resolve_route(id));
    EXPECT_EQ(only_event(host).type, EventType::kRouteResolved);
    return id;
  }
  static ConnectionParameters parameters(std::uint32_t qpn) {
    return {.qpn = qpn,
            .responder_resources = 4,
            .initiator_depth = 3,
            .flow_control = 1,
            .retry_count = 7,
            .rnr_retry_count = 6,
            .qp_type = IBV_QPT_RC};
  }
  // Both ends established; returns their ids.
  std::pair<IdHandle, IdHandle> established() {
    listen(b);
    const IdHandle active = resolved(a, "10.0.0.2");
    EXPECT_TRUE(a.manager.connect(0, active, parameters(kQpnOfA), bytes("hello")));
    run();
    const IdHandle passive = only_event(b).id;
    EXPECT_TRUE(b.manager.accept(0, passive, parameters(kQpnOfB), bytes("welcome")));
    run();
    EXPECT_EQ(only_event(a).type, EventType::kConnectResponse);
    EXPECT_TRUE(a.manager.establish(0, active));
    run();
    EXPECT_EQ(only_event(b).type, EventType::kEstablished);
    return {active, passive};
  }

  FakeHost a{{ip("10.0.0.1"), ip("2001:db8::1")}, 1};
  FakeHost b{{ip("10.0.0.2"), ip("2001:db8::2")}, 2};
};

TEST_F(ManagerTest, ConnectsAndDisconnects) {
  const IdHandle listener = listen(b);
  const IdHandle active = resolved(a, "10.0.0.2");
  ASSERT_TRUE(a.manager.connect(0, active, parameters(kQpnOfA), bytes("hello")));
  run();

  // Expect: the request with the program's own data, the values mirrored, and a new id.
  const Event request = only_event(b);
  EXPECT_EQ(request.type, EventType::kConnectRequest);
  EXPECT_EQ(request.listener, listener);
  EXPECT_EQ(text_of(request.private_data), "hello");
  EXPECT_EQ(request.private_data.size(), 56u);
  EXPECT_EQ(request.parameters.qpn, kQpnOfA);
  EXPECT_EQ(request.parameters.responder_resources, 3);
  EXPECT_EQ(request.parameters.initiator_depth, 4);
  EXPECT_EQ(request.parameters.retry_count, 7);
  const Id* passive = b.manager.find(request.id);
  ASSERT_NE(passive, nullptr);
  EXPECT_EQ(passive->source.port, kPort);
  EXPECT_EQ(passive->destination.ip, ip("10.0.0.1"));
  EXPECT_EQ(passive->destination.port, a.manager.find(active)->source.port);

  // The QP values of the passive side, before the accept.
  const Result<QpAttributes> rtr = b.manager.qp_attributes(request.id, IBV_QPS_RTR);
  ASSERT_TRUE(rtr);
  EXPECT_EQ(rtr->values.remote_qpn, kQpnOfA);
  EXPECT_EQ(rtr->values.path_mtu, 3);
  EXPECT_EQ(rtr->values.responder_resources, 3);
  EXPECT_EQ(rtr->address_handle.destination, ip("10.0.0.1"));
  EXPECT_EQ(rtr->mask, unsigned(IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                                IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
                                IBV_QP_MIN_RNR_TIMER));

  ASSERT_TRUE(b.manager.accept(0, request.id, parameters(kQpnOfB), bytes("welcome")));
  run();
  const Event response = only_event(a);
  EXPECT_EQ(response.type, EventType::kConnectResponse);
  EXPECT_EQ(text_of(response.private_data), "welcome");
  EXPECT_EQ(response.private_data.size(), 196u);
  EXPECT_EQ(response.parameters.qpn, kQpnOfB);
  const Result<QpAttributes> rts = a.manager.qp_attributes(active, IBV_QPS_RTS);
  ASSERT_TRUE(rts);
  EXPECT_EQ(rts->values.rq_psn,
            b.manager.qp_attributes(request.id, IBV_QPS_RTR)->values.sq_psn);
  EXPECT_EQ(rts->values.rnr_retry_count, 6);
  EXPECT_EQ(rts->values.ack_timeout, 17);

  ASSERT_TRUE(a.manager.establish(0, active));
  run();
  EXPECT_EQ(only_event(b).type, EventType::kEstablished);

  ASSERT_TRUE(a.manager.disconnect(0, active));
  run();
  EXPECT_EQ(only_event(a).type, EventType::kDisconnected);
  EXPECT_EQ(only_event(b).type, EventType::kDisconnected);
  EXPECT_TRUE(b.manager.disconnect(0, request.id));  // Already so: no error, no second event.
  run();
  EXPECT_TRUE(b.manager.take_events().empty());

  // Expect: the end of timewait told to those who still have their id.
  a.manager.destroy_id(0, active);
  b.manager.on_timer(10 * kSecond);
  a.manager.on_timer(10 * kSecond);
  EXPECT_EQ(only_event(b).type, EventType::kTimewaitExit);
  EXPECT_TRUE(a.manager.take_events().empty());
}

TEST_F(ManagerTest, CountsOneRequestAndOneReplyPerConnection) {
  established();
  EXPECT_EQ(a.manager.counters().requests_out, 1u);
  EXPECT_EQ(b.manager.counters().listens, 1u);
  EXPECT_EQ(b.manager.counters().requests_in, 1u);
  EXPECT_EQ(b.manager.counters().replies_out, 1u);
  EXPECT_EQ(a.manager.counters().replies_in, 1u);
  // Expect: each host asked its gate once for the request and once for the reply.
  ASSERT_EQ(a.gate.asked.size(), 2u);
  EXPECT_EQ(a.gate.asked[0].point, GatePoint::kRequestOut);
  EXPECT_EQ(a.gate.asked[1].point, GatePoint::kReplyIn);
  ASSERT_EQ(b.gate.asked.size(), 2u);
  EXPECT_EQ(b.gate.asked[0].point, GatePoint::kRequestIn);
  EXPECT_EQ(b.gate.asked[0].port, kPort);
  EXPECT_EQ(b.gate.asked[1].point, GatePoint::kReplyOut);
}

TEST_F(ManagerTest, DeniesAtEachPoint) {
  // Request, at home: nothing leaves.
  a.gate.denied_point = GatePoint::kRequestOut;
  listen(b);
  IdHandle active = resolved(a, "10.0.0.2");
  ASSERT_TRUE(a.manager.connect(0, active, parameters(kQpnOfA), {}));
  EXPECT_TRUE(a.manager.take_outgoing().empty());
  Event event = only_event(a);
  EXPECT_EQ(event.type, EventType::kRejected);
  EXPECT_EQ(event.status, 28);
  EXPECT_EQ(text_of(event.private_data), "isthmus: denied by policy, rule \"test\"");

  // Request, at the other host: its program learns nothing, ours learns why.
  a.gate.denied_point.reset();
  b.gate.denied_point = GatePoint::kRequestIn;
  active = resolved(a, "10.0.0.2");
  ASSERT_TRUE(a.manager.connect(0, active, parameters(kQpnOfA), {}));
  run();
  EXPECT_TRUE(b.manager.take_events().empty());
  event = only_event(a);
  EXPECT_EQ(event.type, EventType::kRejected);
  EXPECT_EQ(text_of(event.private_data), "isthmus: denied by policy, rule \"test\"");

  // Reply, at its own host.
  b.gate.denied_point = GatePoint::kReplyOut;
  active = resolved(a, "10.0.0.2");
  ASSERT_TRUE(a.manager.connect(0, active, parameters(kQpnOfA), {}));
  run();
  const IdHandle passive = only_event(b).id;
  const Result<void> accepted = b.manager.accept(0, passive, parameters(kQpnOfB), {});
  ASSERT_FALSE(accepted);
  EXPECT_EQ(accepted.error().code, ErrorCode::kDenied);
  run();
  EXPECT_EQ(only_event(a).type, EventType::kRejected);

  // Reply, on arrival: both learn.
  b.gate.denied_point.reset();
  a.gate.denied_point = GatePoint::kReplyIn;
  active = resolved(a, "10.0.0.2");
  ASSERT_TRUE(a.manager.connect(0, active, parameters(kQpnOfA), {}));
  run();
  ASSERT_TRUE(b.manager.accept(0, only_event(b).id, parameters(kQpnOfB), {}));
  run();
  EXPECT_EQ(only_event(a).type, EventType::kRejected);
  EXPECT_EQ(only_event(b).type, EventType::kRejected);
  EXPECT_EQ(a.manager.counters().denied, 2u);
  EXPECT_EQ(b.manager.counters().denied, 2u);
}

TEST_F(ManagerTest, GrantsWhatPolicyLeavesAndRevokes) {
  b.gate.access = IBV_ACCESS_REMOTE_READ;
  const auto [active, passive] = established();
  const GrantQuestion question{.local_qpn = kQpnOfB,
                               .local = ip("10.0.0.2"),
                               .remote = ip("10.0.0.1"),
                               .remote_qpn = kQpnOfA};
  const auto grant = b.manager.find_grant(question);
  ASSERT_TRUE(grant);
  EXPECT_EQ(grant->peer_access, unsigned(IBV_ACCESS_REMOTE_READ));
  EXPECT_EQ(grant->client, kClientOfB);
  EXPECT_EQ(b.manager.qp_attributes(passive, IBV_QPS_INIT)->access_flags,
            unsigned(IBV_ACCESS_REMOTE_READ));

  // Another queue pair, another peer, another address: no grant.
  GrantQuestion other = question;
  other.local_qpn = kQpnOfB + 1;
  EXPECT_FALSE(b.manager.find_grant(other));
  other = question;
  other.remote_qpn = kQpnOfA + 1;
  EXPECT_FALSE(b.manager.find_grant(other));
  other = question;
  other.remote = ip("10.0.0.3");
  EXPECT_FALSE(b.manager.find_grant(other));

  // Nothing changed: nothing revoked. Then fewer rights; then none.
  EXPECT_TRUE(b.manager.reevaluate(0).empty());
  b.gate.access = 0;
  std::vector<Revocation> revocations = b.manager.reevaluate(0);
  ASSERT_EQ(revocations.size(), 1u);
  EXPECT_FALSE(revocations[0].denied);
  EXPECT_EQ(revocations[0].peer_access, 0u);
  b.gate.denied_point = GatePoint::kRequestIn;
  revocations = b.manager.reevaluate(0);
  ASSERT_EQ(revocations.size(), 1u);
  EXPECT_TRUE(revocations[0].denied);
  EXPECT_EQ(revocations[0].local_qpn, kQpnOfB);
  EXPECT_FALSE(b.manager.find_grant(question));
  EXPECT_EQ(only_event(b).type, EventType::kDisconnected);
  run();
  EXPECT_EQ(only_event(a).type, EventType::kDisconnected);
  EXPECT_TRUE(b.manager.take_events().empty());
  EXPECT_NE(active, 0u);
}

TEST_F(ManagerTest, ConnectsTwoProgramsOfOneHost) {
  listen(a);
  const IdHandle active = resolved(a, "10.0.0.1");
  ASSERT_TRUE(a.manager.connect(0, active, parameters(kQpnOfA), {}));
  run();
  const IdHandle passive = only_event(a).id;
  ASSERT_TRUE(a.manager.accept(0, passive, parameters(kQpnOfB), {}));
  run();
  EXPECT_EQ(only_event(a).type, EventType::kConnectResponse);
  ASSERT_TRUE(a.manager.establish(0, active));
  run();
  EXPECT_EQ(only_event(a).type, EventType::kEstablished);
  // Expect: the gate knew both programs from the first question on.
  ASSERT_EQ(a.gate.asked.size(), 4u);
  for (const GateQuestion& q : a.gate.asked) {
    const bool of_active = q.point == GatePoint::kRequestOut || q.point == GatePoint::kReplyIn;
    EXPECT_EQ(q.client, of_active ? kClientOfA : kClientOfB);
    EXPECT_EQ(q.neighbour, of_active ? kClientOfB : kClientOfA);
    EXPECT_EQ(q.origin, Origin::kLoopback);
  }
  EXPECT_TRUE(a.manager.find_grant({0, kQpnOfA, ip("10.0.0.1"), ip("10.0.0.1"), kQpnOfB}));
  EXPECT_TRUE(a.manager.find_grant({0, kQpnOfB, ip("10.0.0.1"), ip("10.0.0.1"), kQpnOfA}));
}

TEST_F(ManagerTest, RefusesWhereNobodyListens) {
  const IdHandle active = resolved(a, "10.0.0.2");
  ASSERT_TRUE(a.manager.connect(0, active, parameters(kQpnOfA), {}));
  run();
  const Event event = only_event(a);
  EXPECT_EQ(event.type, EventType::kRejected);
  EXPECT_EQ(event.status, 8);
  EXPECT_EQ(b.manager.connection_count(), 0u);
}

TEST_F(ManagerTest, KeepsToTheBacklog) {
  listen(b, wire::PortSpace::kTcp, 2);
  for (std::uint32_t i = 0; i < 3; ++i) {
    const IdHandle active = resolved(a, "10.0.0.2");
    ASSERT_TRUE(a.manager.connect(0, active, parameters(kQpnOfA + i), {}));
    run();
  }
  std::vector<Event> requests = b.manager.take_events();
  ASSERT_EQ(requests.size(), 2u);
  const Event refused = only_event(a);
  EXPECT_EQ(refused.type, EventType::kRejected);
  EXPECT_EQ(refused.status, 3);

  // One accepted, one rejected: room for two.
  ASSERT_TRUE(b.manager.accept(0, requests[0].id, parameters(kQpnOfB), {}));
  ASSERT_TRUE(b.manager.reject(0, requests[1].id, wire::RejectReason::kConsumerReject,
                               bytes("busy")));
  run();
  const std::vector<Event> events = a.manager.take_events();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[1].status, 28);
  EXPECT_EQ(text_of(events[1].private_data), "busy");
  for (std::uint32_t i = 3; i < 5; ++i) {
    const IdHandle active = resolved(a, "10.0.0.2");
    ASSERT_TRUE(a.manager.connect(0, active, parameters(kQpnOfA + i), {}));
    run();
  }
  EXPECT_EQ(b.manager.take_events().size(), 2u);
}

TEST_F(ManagerTest, ResolvesDatagramServices) {
  listen(b, wire::PortSpace::kUdp);
  const IdHandle active = resolved(a, "10.0.0.2", wire::PortSpace::kUdp);
  ConnectionParameters mine{.qpn = kQpnOfA};
  ASSERT_TRUE(a.manager.connect(0, active, mine, bytes("who")));
  run();
  const Event request = only_event(b);
  EXPECT_EQ(request.type, EventType::kConnectRequest);
  EXPECT_TRUE(request.is_datagram);
  EXPECT_EQ(text_of(request.private_data), "who");
  EXPECT_EQ(request.private_data.size(), 180u);
  ASSERT_TRUE(b.manager.accept(0, request.id, {.qpn = kQpnOfB}, bytes("me")));
  run();
  const Event answer = only_event(a);
  EXPECT_EQ(answer.type, EventType::kEstablished);
  EXPECT_EQ(answer.parameters.qpn, kQpnOfB);
  EXPECT_EQ(answer.parameters.qkey, kUdpQkey);
  EXPECT_EQ(answer.address_handle.destination, ip("10.0.0.2"));
  EXPECT_EQ(text_of(answer.private_data), "me");

  // Rejected: UNREACHABLE with the SIDR status.
  const IdHandle second = resolved(a, "10.0.0.2", wire::PortSpace::kUdp);
  ASSERT_TRUE(a.manager.connect(0, second, mine, {}));
  run();
  ASSERT_TRUE(b.manager.reject(0, only_event(b).id, wire::RejectReason::kConsumerReject, {}));
  run();
  const Event refused = only_event(a);
  EXPECT_EQ(refused.type, EventType::kUnreachable);
  EXPECT_EQ(refused.status, 2);
}

TEST_F(ManagerTest, SaysWhyAnAddressIsNoUse) {
  const IdHandle id = a.manager.create_id(kClientOfA, wire::PortSpace::kTcp, 0);
  EXPECT_EQ(a.manager.bind(id, at("10.9.9.9")).error().code, ErrorCode::kAddressNotAvailable);
  EXPECT_EQ(a.manager.resolve_address(id, at("10.0.0.1"), at("2001:db8::2")).error().code,
            ErrorCode::kInvalid);
  ASSERT_TRUE(a.manager.resolve_address(id, std::nullopt, at("192.0.2.1")));
  const Event event = only_event(a);
  EXPECT_EQ(event.type, EventType::kAddressError);
  EXPECT_EQ(event.status, -ENETUNREACH);
  EXPECT_FALSE(a.manager.resolve_route(id));
  EXPECT_FALSE(a.manager.connect(0, id, {}, {}));
  EXPECT_FALSE(a.manager.accept(0, id, {}, {}));
  EXPECT_FALSE(a.manager.disconnect(0, id));
  EXPECT_FALSE(a.manager.qp_attributes(id, IBV_QPS_RTR));
}

TEST_F(ManagerTest, TheWildcardAsDestinationIsThisHost) {
  const IdHandle id = a.manager.create_id(kClientOfA, wire::PortSpace::kTcp, 0);
  ASSERT_TRUE(a.manager.bind(id, at("10.0.0.1")));
  ASSERT_TRUE(a.manager.resolve_address(id, std::nullopt, at("0.0.0.0", kPort)));
  EXPECT_EQ(a.manager.find(id)->destination.ip, ip("10.0.0.1"));
}

TEST_F(ManagerTest, JoinsGroups) {
  const IdHandle id = a.manager.create_id(kClientOfA, wire::PortSpace::kUdp, 0);
  EXPECT_FALSE(a.manager.join_multicast(id, at("239.1.2.3"), false));  // Not bound.
  ASSERT_TRUE(a.manager.bind(id, at("10.0.0.1")));
  EXPECT_FALSE(a.manager.join_multicast(id, at("10.1.2.3"), false));  // Not a group.
  const Result<std::uint32_t> multicast = a.manager.join_multicast(id, at("239.1.2.3"), false);
  ASSERT_TRUE(multicast);
  const Event event = only_event(a);
  EXPECT_EQ(event.type, EventType::kMulticastJoin);
  EXPECT_EQ(event.multicast, *multicast);
  EXPECT_EQ(event.parameters.qkey, kUdpQkey);
  EXPECT_EQ(event.parameters.qpn, 0xffffffu);
  EXPECT_EQ(event.address_handle.destination, ip("239.1.2.3"));
  EXPECT_TRUE(a.manager.leave_multicast(id, *multicast));
  EXPECT_FALSE(a.manager.leave_multicast(id, *multicast));
}

TEST_F(ManagerTest, ADyingProgramTellsItsPeers) {
  const auto [active, passive] = established();
  const IdHandle waiting = resolved(a, "10.0.0.2");
  ASSERT_TRUE(a.manager.connect(0, waiting, parameters(kQpnOfA + 1), {}));
  run();
  const IdHandle asked = only_event(b).id;
  a.manager.destroy_id(0, active);
  a.manager.destroy_id(0, waiting);
  run();
  const std::vector<Event> events = b.manager.take_events();
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(events[0].type, EventType::kDisconnected);
  EXPECT_EQ(events[0].id, passive);
  EXPECT_EQ(events[1].type, EventType::kRejected);
  EXPECT_EQ(events[1].id, asked);

  // The other program has not read that yet. Expect: its steps fail, and say why.
  const auto attributes = b.manager.qp_attributes(asked, IBV_QPS_RTR);
  ASSERT_FALSE(attributes);
  EXPECT_NE(attributes.error().message.find("has given up"), std::string::npos);
  EXPECT_FALSE(b.manager.accept(0, asked, parameters(kQpnOfB + 1), {}));
}

TEST_F(ManagerTest, RestoresAnEstablishedConnection) {
  const auto [active, passive] = established();
  const QpAttributes known = *a.manager.qp_attributes(active, IBV_QPS_RTS);
  const Id id = *a.manager.find(active);

  // A new daemon on a's host, told by its program what there was.
  FakeHost again{{ip("10.0.0.1")}, 3};
  Exchange exchange;
  exchange.id = known.local_id;
  exchange.remote_id = known.remote_id;
  exchange.role = Role::kActive;
  exchange.local = ip("10.0.0.1");
  exchange.remote = ip("10.0.0.2");
  exchange.values.local_qpn = kQpnOfA;
  exchange.values.remote_qpn = kQpnOfB;
  again.gate.denied_point = GatePoint::kReplyIn;
  EXPECT_EQ(again.manager
                .restore(kClientOfA, wire::PortSpace::kTcp, id.source, id.destination, exchange)
                .error()
                .code,
            ErrorCode::kDenied);
  again.gate.denied_point.reset();
  const Result<IdHandle> restored = again.manager.restore(kClientOfA, wire::PortSpace::kTcp,
                                                          id.source, id.destination, exchange);
  ASSERT_TRUE(restored);
  ASSERT_TRUE(again.manager.disconnect(0, *restored));
  for (const OutgoingMad& m : again.manager.take_outgoing()) deliver(0, m);
  EXPECT_EQ(only_event(b).type, EventType::kDisconnected);
  for (const OutgoingMad& m : b.manager.take_outgoing()) {
    again.manager.on_mad(0, {.source = m.source, .destination = m.destination, .mad = m.mad});
  }
  EXPECT_EQ(only_event(again).type, EventType::kDisconnected);
  EXPECT_NE(passive, 0u);
}

}  // namespace
}  // namespace isthmus::cm
