// Goal: two programs, each with the service of its own host, connect, are denied, marked, revoked
// and cleaned up behind; and whatever a program sends, no other one notices.
// Method: both services on one loop, joined by a network that a test can look into and tamper
// with; programs are sockets that speak the messages of attach/cm_protocol.h and wait for answers.
#include "control/cm_service.h"

#include <gtest/gtest.h>
#include <infiniband/verbs.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <future>
#include <thread>

#include "cluster/policy_toml.h"
#include "os/clock.h"
#include "wire/byte_order.h"

namespace isthmus::control {
namespace {

using namespace attach;

constexpr std::uint16_t kPort = 7471;
constexpr std::uint32_t kQpnOfA = 0x004001;
constexpr std::uint32_t kQpnOfB = 0x008002;
constexpr std::uint32_t kMadeUpQpn = 1000;
constexpr std::size_t kModifierOffset = wire::kBthBytes + wire::kDethBytes + 20;

CmAddress address(const char* text, std::uint16_t port = 0) {
  CmAddress result{.family = AF_INET, .port = port};
  const wire::IpAddress ip = *wire::IpAddress::parse(text);
  std::memcpy(result.ip.data(), ip.bytes().data(), result.ip.size());
  return result;
}

// One program's connection, from the program's side.
class Program {
 public:
  explicit Program(os::Fd connection) : connection_(std::move(connection)) {
    std::array<std::byte, kAttachMaxMessageBytes> greeting;
    const auto answered = os::receive_message(connection_, greeting, os::Wait::kYes);
    EXPECT_TRUE(answered && decode_welcome(std::span(greeting).first(answered->bytes)));
    auto [ours, theirs] = *os::unix_socket_pair();
    events_ = std::move(ours);
    const int fd = theirs.get();
    channel_ = call<CmHandleReply>(CmPlainRequest{}, CmCommand::kCreateChannel, 0, {&fd, 1}).handle;
  }

  template <class Reply, class Request>
  Reply call(Request request, CmCommand command, std::uint32_t id = 0,
             std::span<const int> fds = {}) {
    request.header.command = command;
    request.header.id = id;
    request.header.sequence = ++sequence_;
    EXPECT_TRUE(os::send_message(connection_, bytes_of(request), fds, os::Wait::kYes));
    std::array<std::byte, kCmMaxMessageBytes> buffer;
    const auto received = os::receive_message(connection_, buffer, os::Wait::kYes);
    if (!received) {
      closed_ = true;
      return {};
    }
    const auto reply =
        decode_cm_reply<Reply>(std::span<const std::byte>(buffer).first(received->bytes), command);
    EXPECT_TRUE(reply);
    EXPECT_EQ(reply->header.sequence, sequence_);
    return *reply;
  }
  template <class Request>
  int run(const Request& request, CmCommand command, std::uint32_t id) {
    return call<CmPlainReply>(request, command, id).header.error;
  }
  int run(CmCommand command, std::uint32_t id) { return run(CmPlainRequest{}, command, id); }

  CmEvent next_event() {
    std::array<std::byte, kCmMaxMessageBytes> buffer;
    const auto received = os::receive_message(events_, buffer, os::Wait::kYes);
    EXPECT_TRUE(received);
    const auto event =
        decode_cm_event(std::span<const std::byte>(buffer).first(received ? received->bytes : 0));
    EXPECT_TRUE(event);
    return event ? *event : CmEvent{};
  }
  bool has_event() {
    std::array<std::byte, kCmMaxMessageBytes> buffer;
    return os::receive_message(events_, buffer).has_value();
  }

  std::uint32_t create(CmPortSpace space = CmPortSpace::kTcp, std::uint64_t cookie = 7) {
    return call<CmHandleReply>(
               CmCreateId{.cookie = cookie, .channel = channel_, .port_space = space},
               CmCommand::kCreateId)
        .handle;
  }
  std::uint32_t listen(CmPortSpace space = CmPortSpace::kTcp) {
    const std::uint32_t id = create(space, 99);
    const auto bound = call<CmRouteReply>(CmBindAddress{.address = address("0.0.0.0", kPort)},
                                          CmCommand::kBindAddress, id);
    EXPECT_EQ(bound.header.error, 0);
    EXPECT_EQ(call<CmRouteReply>(CmListen{.backlog = 8}, CmCommand::kListen, id).header.error, 0);
    return id;
  }
  std::uint32_t resolved(const char* to, CmPortSpace space = CmPortSpace::kTcp) {
    const std::uint32_t id = create(space);
    const auto reply = call<CmRouteReply>(CmResolveAddress{.destination = address(to, kPort)},
                                          CmCommand::kResolveAddress, id);
    EXPECT_EQ(reply.header.error, 0);
    EXPECT_EQ(next_event().type, CmEventType::kAddressResolved);
    EXPECT_EQ(call<CmRouteReply>(CmResolveRoute{}, CmCommand::kResolveRoute, id).header.error, 0);
    EXPECT_EQ(next_event().type, CmEventType::kRouteResolved);
    return id;
  }

  std::uint32_t channel() const { return channel_; }
  bool closed() const { return closed_; }
  const os::Fd& connection() const { return connection_; }
  void hang_up() { connection_.reset(); }

 private:
  os::Fd connection_;
  os::Fd events_;
  std::uint32_t channel_ = 0;
  std::uint32_t sequence_ = 0;
  bool closed_ = false;
};

CmConnect connect_request(std::uint32_t qpn, std::string_view text = {}) {
  CmConnect request{.parameters = {.qpn = qpn,
                                   .responder_resources = 1,
                                   .initiator_depth = 1,
                                   .retry_count = 7,
                                   .rnr_retry_count = 7,
                                   .qp_type = IBV_QPT_RC}};
  request.private_data.bytes = static_cast<std::uint16_t>(text.size());
  std::ranges::copy(text, request.private_data.data.begin());
  return request;
}

CmAccept accept_request(std::uint32_t qpn, std::uint64_t cookie = 8) {
  return CmAccept{.cookie = cookie,
                  .parameters = {.qpn = qpn, .rnr_retry_count = 7, .qp_type = IBV_QPT_RC}};
}

cluster::PolicyDocument document(std::string_view text) {
  return cluster::parse_policy(text, "test").value();
}

std::string text_of(const CmPrivateData& data) {
  const std::string all(reinterpret_cast<const char*>(data.data.data()), data.bytes);
  return all.substr(0, all.find('\0'));
}

// Joins the services of the test; every packet passes `inspect`, which may change it.
class TestNetwork : public CmNetwork {
 public:
  explicit TestNetwork(EventLoop& loop) : loop_(loop) {}
  void attach(const char* ip, CmService& service) {
    services_[*wire::IpAddress::parse(ip)] = &service;
  }
  std::function<void(std::vector<std::byte>&)> inspect;

  void send(const CmDatagram& datagram) override {
    std::vector<std::byte> bytes(datagram.payload.begin(), datagram.payload.end());
    if (inspect) inspect(bytes);
    CmDatagram copy = datagram;
    loop_.post([this, copy, bytes]() mutable {
      copy.payload = bytes;
      const auto found = services_.find(copy.destination);
      if (found != services_.end()) found->second->on_datagram(copy);
    });
  }
  void detach_all() { services_.clear(); }

 private:
  EventLoop& loop_;
  std::map<wire::IpAddress, CmService*> services_;
};

// The ICRC again, for a packet that was tampered with.
void seal(std::vector<std::byte>& packet, const char* from, const char* to) {
  const wire::IcrcFlow flow{.source = *wire::IpAddress::parse(from),
                            .destination = *wire::IpAddress::parse(to),
                            .source_port = 4791,
                            .destination_port = 4791};
  wire::store_le32(packet.data() + packet.size() - 4,
                   wire::icrc(flow, std::span(packet).first(packet.size() - 4)));
}

class CmServiceTest : public testing::Test {
 protected:
  CmServiceTest() {
    options_a_.cluster_key = options_b_.cluster_key = cluster_key_of("secret");
  }
  ~CmServiceTest() override {
    if (!thread_.joinable()) return;
    on_loop([&] {
      network_.detach_all();
      a_.reset();
      b_.reset();
    });
    loop_->stop();
    thread_.join();
  }

  void start() {
    a_ = make_service(policy_a_, options_a_);
    b_ = make_service(policy_b_, options_b_);
    a_->set_gids({{.address = *wire::IpAddress::parse("10.0.0.1"), .mtu = 1500}});
    b_->set_gids({{.address = *wire::IpAddress::parse("10.0.0.2"), .mtu = 9000}});
    network_.attach("10.0.0.1", *a_);
    network_.attach("10.0.0.2", *b_);
    thread_ = std::thread([this] { loop_->run(); });
  }
  std::unique_ptr<CmService> make_service(const HostPolicy& policy,
                                          const CmServiceOptions& options) {
    const auto route = [](const wire::IpAddress&) -> Result<wire::IpAddress> {
      return wire::IpAddress{};  // None of ours: the first address that fits is taken.
    };
    const CmHooks hooks{
        .owner_of_qp = [](std::uint32_t qpn) -> std::optional<CmHooks::QpOwner> {
          if (qpn == 0xbad) return CmHooks::QpOwner{.label = "somebody else"};
          if (qpn == kMadeUpQpn) return std::nullopt;
          return CmHooks::QpOwner{.label = "web"};
        },
        .revoke = [this](std::uint32_t qpn) { revoked_.push_back(qpn); },
        .restrict_access = [this](std::uint32_t qpn, std::uint32_t access) {
          restricted_.emplace_back(qpn, access);
        }};
    return std::make_unique<CmService>(*loop_, policy, network_, route, hooks, options);
  }
  template <class Function>
  void on_loop(Function function) {
    std::promise<void> done;
    loop_->post([&] {
      function();
      done.set_value();
    });
    done.get_future().wait();
  }
  Program program(CmService& service, const char* label = "web") {
    auto [ours, theirs] = *os::unix_socket_pair();
    auto connection = std::make_shared<os::Fd>(std::move(theirs));
    on_loop([&] {
      Greeting greeting;
      greeting.hello.label = text_of_label(label);
      service.serve(std::move(*connection), greeting);
    });
    return Program(std::move(ours));
  }
  static decltype(Hello::label) text_of_label(const char* label) {
    return attach::text_of<sizeof(Hello::label)>(label);
  }
  // From start to established on both sides: the ids.
  std::pair<std::uint32_t, std::uint32_t> establish(Program& active, Program& passive,
                                                    const char* to = "10.0.0.2") {
    passive.listen();
    const std::uint32_t from = active.resolved(to);
    EXPECT_EQ(active.run(connect_request(kQpnOfA, "hello"), CmCommand::kConnect, from), 0);
    const CmEvent request = passive.next_event();
    EXPECT_EQ(request.type, CmEventType::kConnectRequest);
    EXPECT_EQ(passive.run(accept_request(kQpnOfB), CmCommand::kAccept, request.id), 0);
    EXPECT_EQ(active.next_event().type, CmEventType::kConnectResponse);
    EXPECT_EQ(active.run(CmCommand::kEstablish, from), 0);
    const CmEvent up = passive.next_event();
    EXPECT_EQ(up.type, CmEventType::kEstablished);
    EXPECT_EQ(up.cookie, 8u);
    return {from, request.id};
  }

  std::unique_ptr<EventLoop> loop_ = *EventLoop::create();
  TestNetwork network_{*loop_};
  HostPolicy policy_a_{cluster::PolicyDocument::allow_all()};
  HostPolicy policy_b_{cluster::PolicyDocument::allow_all()};
  CmServiceOptions options_a_;
  CmServiceOptions options_b_;
  std::unique_ptr<CmService> a_;
  std::unique_ptr<CmService> b_;
  std::vector<std::uint32_t> revoked_;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> restricted_;
  std::thread thread_;
};

TEST_F(CmServiceTest, ConnectsTwoHosts) {
  start();
  Program active = program(*a_);
  Program passive = program(*b_);
  const std::uint32_t listener = passive.listen();
  const std::uint32_t id = active.resolved("10.0.0.2");
  ASSERT_EQ(active.run(connect_request(kQpnOfA, "hello"), CmCommand::kConnect, id), 0);

  const CmEvent request = passive.next_event();
  EXPECT_EQ(request.type, CmEventType::kConnectRequest);
  EXPECT_EQ(request.listen_id, listener);
  EXPECT_EQ(request.listen_cookie, 99u);
  EXPECT_EQ(request.connection.qpn, kQpnOfA);
  EXPECT_EQ(text_of(request.private_data), "hello");
  EXPECT_EQ(request.route.bound, 1);
  EXPECT_EQ(request.route.source.port, kPort);
  EXPECT_EQ(request.route.destination.family, AF_INET);

  // The queue pair's values; the smaller MTU of the two hosts is the asking one's here.
  const auto attributes = passive.call<CmQpAttributesReply>(
      CmInitQpAttributes{.qp_state = IBV_QPS_RTR}, CmCommand::kInitQpAttributes, request.id);
  EXPECT_EQ(attributes.dest_qpn, kQpnOfA);
  EXPECT_EQ(attributes.path_mtu, unsigned(IBV_MTU_1024));
  EXPECT_NE(attributes.local_communication_id, 0u);

  // A queue pair of this connection is admitted, before the accept and after it.
  AdmissionQuestion question{.label = "web",
                             .qpn = kQpnOfB,
                             .dest_qpn = kQpnOfA,
                             .local = *wire::IpAddress::parse("10.0.0.2"),
                             .remote = *wire::IpAddress::parse("10.0.0.1")};
  on_loop([&] { EXPECT_TRUE(b_->find_grant(question)); });
  ASSERT_EQ(passive.run(accept_request(kQpnOfB), CmCommand::kAccept, request.id), 0);
  on_loop([&] { EXPECT_TRUE(b_->find_grant(question)); });
  question.label = "other";
  on_loop([&] { EXPECT_FALSE(b_->find_grant(question)); });

  EXPECT_EQ(active.next_event().type, CmEventType::kConnectResponse);
  ASSERT_EQ(active.run(CmCommand::kEstablish, id), 0);
  EXPECT_EQ(passive.next_event().type, CmEventType::kEstablished);
  ASSERT_EQ(active.run(CmCommand::kDisconnect, id), 0);
  EXPECT_EQ(active.next_event().type, CmEventType::kDisconnected);
  EXPECT_EQ(passive.next_event().type, CmEventType::kDisconnected);

  // ADDR, ROUTE, RESPONSE and DISCONNECTED; the listener had its one request.
  EXPECT_EQ(active.call<CmCountReply>(CmPlainRequest{}, CmCommand::kDestroyId, id)
                .events_delivered, 4u);
  EXPECT_EQ(passive.call<CmCountReply>(CmPlainRequest{}, CmCommand::kDestroyId, listener)
                .events_delivered, 1u);
  on_loop([&] {
    EXPECT_EQ(a_->own_counters().marked_in, b_->own_counters().marked_out);
    EXPECT_EQ(b_->own_counters().marked_in, 3u);  // REQ, RTU, DREQ.
    EXPECT_EQ(a_->own_counters().foreign_in, 0u);
  });
}

TEST_F(CmServiceTest, ConnectsTwoProgramsOfOneHostWithoutTheNetwork) {
  bool used = false;
  network_.inspect = [&](std::vector<std::byte>&) { used = true; };
  start();
  Program active = program(*a_);
  Program passive = program(*a_);
  const auto [from, to] = establish(active, passive, "10.0.0.1");
  // Its process ends. Expect: the other one is told.
  active.hang_up();
  const CmEvent gone = passive.next_event();
  EXPECT_EQ(gone.type, CmEventType::kDisconnected);
  EXPECT_EQ(gone.id, to);
  EXPECT_FALSE(used);
  EXPECT_NE(from, 0u);
}

TEST_F(CmServiceTest, ADeniedRequestSaysWhy) {
  policy_b_.replace(document("[[rule]]\nname = \"no-7471\"\nto = { port = 7471 }\ndeny = true\n"));
  start();
  Program active = program(*a_);
  Program passive = program(*b_);
  passive.listen();
  const std::uint32_t id = active.resolved("10.0.0.2");
  ASSERT_EQ(active.run(connect_request(kQpnOfA), CmCommand::kConnect, id), 0);
  const CmEvent event = active.next_event();
  EXPECT_EQ(event.type, CmEventType::kRejected);
  EXPECT_EQ(event.status, 28);
  EXPECT_EQ(text_of(event.private_data), "isthmus: denied by policy, rule \"no-7471\"");
  EXPECT_FALSE(passive.has_event());
  on_loop([&] { EXPECT_EQ(b_->manager().counters().denied, 1u); });
}

TEST_F(CmServiceTest, ChangedPolicyRevokes) {
  start();
  Program active = program(*a_);
  Program passive = program(*b_);
  establish(active, passive);
  // Fewer rights: the queue pair's owner is told. None: both programs are.
  policy_b_.replace(document("[[rule]]\nallow = [\"connect\", \"read\"]\n"));
  on_loop([&] { EXPECT_EQ(b_->reevaluate(), 1u); });
  EXPECT_EQ(restricted_, (std::vector<std::pair<std::uint32_t, std::uint32_t>>{
                             {kQpnOfB, IBV_ACCESS_REMOTE_READ}}));
  policy_b_.replace(document("default = \"deny\"\n"));
  on_loop([&] { EXPECT_EQ(b_->reevaluate(), 1u); });
  EXPECT_EQ(revoked_, std::vector<std::uint32_t>{kQpnOfB});
  EXPECT_EQ(passive.next_event().type, CmEventType::kDisconnected);
  EXPECT_EQ(active.next_event().type, CmEventType::kDisconnected);
}

TEST_F(CmServiceTest, DropsForgedMarksAndDamagedPackets) {
  start();
  Program active = program(*a_);
  Program passive = program(*b_);
  passive.listen();
  int packets = 0;
  network_.inspect = [&](std::vector<std::byte>& packet) {
    if (++packets == 1) {  // Another mark, everything else right.
      packet[kModifierOffset] ^= std::byte{1};
      seal(packet, "10.0.0.1", "10.0.0.2");
    } else if (packets == 2) {  // Another bit, and the ICRC as it was.
      packet[100] ^= std::byte{1};
    }
  };
  const std::uint32_t id = active.resolved("10.0.0.2");
  ASSERT_EQ(active.run(connect_request(kQpnOfA), CmCommand::kConnect, id), 0);
  // Expect: the attempt after next is the one that counts.
  EXPECT_EQ(passive.next_event().type, CmEventType::kConnectRequest);
  on_loop([&] {
    EXPECT_EQ(b_->own_counters().forged, 1u);
    EXPECT_EQ(b_->own_counters().bad_icrc, 1u);
    EXPECT_EQ(b_->own_counters().marked_in, 1u);
  });
}

TEST_F(CmServiceTest, AHostWithoutTheKeyIsForeign) {
  options_a_.cluster_key.reset();
  start();
  Program active = program(*a_);
  Program passive = program(*b_);
  establish(active, passive);
  on_loop([&] {
    EXPECT_EQ(b_->own_counters().foreign_in, 2u);
    EXPECT_EQ(a_->own_counters().foreign_in, 1u);  // A mark it cannot check.
    EXPECT_EQ(a_->own_counters().forged, 0u);
  });
}

TEST_F(CmServiceTest, TheEndOfTheServiceEndsNoConnection) {
  start();
  Program active = program(*a_);
  Program passive = program(*b_);
  const auto [id, other] = establish(active, passive);
  const auto known = active.call<CmQpAttributesReply>(CmInitQpAttributes{.qp_state = IBV_QPS_RTS},
                                                      CmCommand::kInitQpAttributes, id);
  const CmRoute route = active.call<CmRouteReply>(CmPlainRequest{}, CmCommand::kQuery, id).route;
  on_loop([&] {
    network_.detach_all();
    a_.reset();
  });
  EXPECT_FALSE(passive.has_event());

  // The next daemon's service: the program tells it, and can then end the connection properly.
  on_loop([&] {
    a_ = make_service(policy_a_, options_a_);
    a_->set_gids({{.address = *wire::IpAddress::parse("10.0.0.1"), .mtu = 1500}});
    network_.attach("10.0.0.1", *a_);
    network_.attach("10.0.0.2", *b_);
  });
  Program again = program(*a_);
  const auto restored =
      again.call<CmHandleReply>(CmRestoreId{.cookie = 11,
                                            .channel = again.channel(),
                                            .port_space = CmPortSpace::kTcp,
                                            .active = 1,
                                            .route = route,
                                            .local_qpn = kQpnOfA,
                                            .remote_qpn = kQpnOfB,
                                            .local_communication_id = known.local_communication_id,
                                            .remote_communication_id =
                                                known.remote_communication_id},
                                CmCommand::kRestoreId);
  ASSERT_EQ(restored.header.error, 0);
  ASSERT_EQ(again.run(CmCommand::kDisconnect, restored.handle), 0);
  const CmEvent end = passive.next_event();
  EXPECT_EQ(end.type, CmEventType::kDisconnected);
  EXPECT_EQ(end.id, other);
  const CmEvent own = again.next_event();
  EXPECT_EQ(own.type, CmEventType::kDisconnected);
  EXPECT_EQ(own.cookie, 11u);
}

TEST_F(CmServiceTest, AProgramReachesOnlyWhatIsItsOwn) {
  start();
  Program honest = program(*a_);
  Program curious = program(*a_);
  const std::uint32_t id = honest.create();
  EXPECT_EQ(curious.run(CmCommand::kDestroyId, id), EINVAL);
  EXPECT_EQ(curious.run(CmCommand::kDisconnect, id), EINVAL);
  EXPECT_EQ(curious.run(CmCommand::kDestroyChannel, honest.channel()), EINVAL);
  EXPECT_EQ(honest.run(CmCommand::kDestroyChannel, honest.channel()), EBUSY);

  // Somebody else's queue pair in its own request.
  const std::uint32_t own = curious.resolved("10.0.0.2");
  EXPECT_EQ(curious.run(connect_request(0xbad), CmCommand::kConnect, own), EINVAL);
  EXPECT_EQ(curious.run(connect_request(kMadeUpQpn), CmCommand::kConnect, own), 0);

  // Nonsense ends the connection of the one who sent it, and nothing else.
  EXPECT_TRUE(os::send_message(curious.connection(), std::as_bytes(std::span{"nonsense"}), {}));
  std::array<std::byte, 64> buffer;
  EXPECT_FALSE(os::receive_message(curious.connection(), buffer, os::Wait::kYes));
  EXPECT_EQ(honest.call<CmCountReply>(CmPlainRequest{}, CmCommand::kDestroyId, id).header.error,
            0);
}

TEST_F(CmServiceTest, KeepsEventsForAProgramThatDoesNotRead) {
  start();
  Program slow = program(*a_);
  // Two events an id, far more than a socket holds.
  static constexpr int kIds = 2000;
  std::vector<std::uint32_t> ids;
  for (int i = 0; i < kIds; ++i) {
    ids.push_back(slow.create(CmPortSpace::kTcp, static_cast<std::uint64_t>(i)));
    const auto reply = slow.call<CmRouteReply>(
        CmResolveAddress{.destination = address("10.0.0.2", kPort)}, CmCommand::kResolveAddress,
        ids.back());
    ASSERT_EQ(reply.header.error, 0);
  }
  for (int i = 0; i < kIds; ++i) {
    const CmEvent event = slow.next_event();
    ASSERT_EQ(event.type, CmEventType::kAddressResolved);
    ASSERT_EQ(event.cookie, static_cast<std::uint64_t>(i));
  }
  EXPECT_FALSE(slow.has_event());
}

TEST_F(CmServiceTest, JoinsAndMigrates) {
  start();
  Program owner = program(*a_);
  const std::uint32_t id = owner.create(CmPortSpace::kUdp);
  ASSERT_EQ(owner.call<CmRouteReply>(CmBindAddress{.address = address("10.0.0.1")},
                                     CmCommand::kBindAddress, id).header.error, 0);
  const auto joined = owner.call<CmHandleReply>(
      CmJoinMulticast{.cookie = 5, .group = address("239.1.2.3")}, CmCommand::kJoinMulticast, id);
  ASSERT_EQ(joined.header.error, 0);
  const CmEvent event = owner.next_event();
  EXPECT_EQ(event.type, CmEventType::kMulticastJoin);
  EXPECT_EQ(event.cookie, 5u);
  EXPECT_EQ(event.multicast, joined.handle);
  EXPECT_EQ(event.connection.qkey, 0x01234567u);
  EXPECT_EQ(event.address_handle.is_global, 1);
  const auto left = owner.call<CmCountReply>(CmLeaveMulticast{.multicast = joined.handle},
                                             CmCommand::kLeaveMulticast, id);
  EXPECT_EQ(left.events_delivered, 1u);

  auto [ours, theirs] = *os::unix_socket_pair();
  const int fd = theirs.get();
  const auto second =
      owner.call<CmHandleReply>(CmPlainRequest{}, CmCommand::kCreateChannel, 0, {&fd, 1});
  EXPECT_EQ(owner.call<CmCountReply>(CmMigrateId{.channel = second.handle}, CmCommand::kMigrateId,
                                     id).events_delivered, 0u);
  ASSERT_EQ(owner.call<CmRouteReply>(CmResolveAddress{.destination = address("10.0.0.2")},
                                     CmCommand::kResolveAddress, id).header.error, 0);
  std::array<std::byte, kCmMaxMessageBytes> buffer;
  EXPECT_TRUE(os::receive_message(ours, buffer, os::Wait::kYes));
  EXPECT_FALSE(owner.has_event());
}

}  // namespace
}  // namespace isthmus::control
