// Goal: a process gets a function, is admitted, finds its neighbours, hears what it must, and
// leaves nothing behind when it goes.
// Method: the real loop, place, server and clients in one process, on a loopback address and a port
// of the test's own. What happens on the loop is waited for by promises, never by time.
#include "control/function_service.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <infiniband/verbs.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <semaphore>
#include <thread>

#include "attach/attach_client.h"
#include "control/attach_server.h"
#include "os/clock.h"
#include "os/poll.h"
#include "os/udp_socket.h"

namespace isthmus::control {
namespace {

constexpr const char* kAddress = "127.1.2.3";
constexpr std::uint32_t kAllAccess =
    IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;

wire::IpAddress address_of(const char* text) { return *wire::IpAddress::parse(text); }

// Answers what the test says; asked on the loop.
class ScriptedGate final : public AdmissionGate {
 public:
  AdmissionAnswer judge(const AdmissionQuestion& question) override {
    last = question;
    return answer;
  }
  AdmissionAnswer answer{.allowed = true, .peer_access = kAllAccess, .rule = "test"};
  AdmissionQuestion last;
};

class Watcher final : public FunctionObserver {
 public:
  void on_detached(const Function&) override { detached.release(); }
  void on_cut_off(const Function&) override { cut_off.release(); }
  std::counting_semaphore<> detached{0};
  std::counting_semaphore<> cut_off{0};
};

class FunctionServiceTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "isthmus-function-" + std::to_string(getpid());
    std::filesystem::create_directory(folder_);
    socket_path_ = folder_ + "/d.sock";
    loop_ = std::move(*EventLoop::create());
    auto place = Place::open({.only = {address_of(kAddress)}, .port = free_port()}, os::Fd{}, {});
    ASSERT_TRUE(place) << place.error().message;
    place_ = std::move(*place);
    functions_ = std::make_unique<FunctionService>(*loop_, gate_, "host-label");
    functions_->add_observer(watcher_);
    auto listener = os::listen_unix(socket_path_, os::UnixAccess::kOwner);
    ASSERT_TRUE(listener) << listener.error().message;
    server_ = std::make_unique<AttachServer>(
        *loop_, std::move(*listener),
        AttachServer::Handlers{.function =
                                   [this](os::Fd connection, Greeting greeting) {
                                     functions_->serve(std::move(connection), std::move(greeting),
                                                       *place_);
                                   },
                               .cm = [](os::Fd, Greeting) {},
                               .holders_changed = [] {}});
    ASSERT_TRUE(server_->start());
    thread_ = std::thread([this] { loop_->run(); });
  }

  void TearDown() override {
    loop_->stop();
    thread_.join();
    server_.reset();
    functions_.reset();
    std::filesystem::remove_all(folder_);
  }

  static std::uint16_t free_port() {
    return (*os::UdpSocket::open({.address = address_of(kAddress)}))->port();
  }

  std::unique_ptr<attach::AttachClient> attach(
      attach::ChannelWish channel = attach::ChannelWish::kAuto, const char* label = "") {
    auto client = attach::AttachClient::connect(
        {.socket_path = socket_path_, .label = label, .channel = channel});
    EXPECT_TRUE(client) << client.error().message;
    return std::move(*client);
  }

  // Runs on the loop, where the services may be used, and waits.
  template <class Action>
  auto on_loop(Action action) {
    std::promise<decltype(action())> done;
    loop_->post([&] {
      if constexpr (std::is_void_v<decltype(action())>) {
        action();
        done.set_value();
      } else {
        done.set_value(action());
      }
    });
    return done.get_future().get();
  }

  static attach::AttachEvent wait_event(attach::AttachClient& client) {
    while (true) {
      const int fd = client.event_fd();
      EXPECT_TRUE(os::wait_readable({&fd, 1}, 10 * os::kNsPerSecond)) << "no event";
      if (auto event = client.next_event()) return std::move(*event);
    }
  }

  static attach::AdmitRequest request(std::uint32_t qpn, std::uint32_t dest_qpn) {
    return {.qpn = qpn,
            .dest_qpn = dest_qpn,
            .local_gid = address_of(kAddress),
            .remote_gid = address_of(kAddress),
            .transport = IBV_QPT_RC};
  }

  static std::uint32_t qpn_of(const std::unique_ptr<attach::AttachClient>& client) {
    return (client->grant().function << rdma::kFunctionShift) | 5;
  }

  std::string folder_;
  std::string socket_path_;
  ScriptedGate gate_;
  Watcher watcher_;
  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<Place> place_;
  std::unique_ptr<FunctionService> functions_;
  std::unique_ptr<AttachServer> server_;
  std::thread thread_;
};

TEST_F(FunctionServiceTest, GivesEachProcessTheLowestFreeFunction) {
  auto first = attach();
  auto second = attach();
  EXPECT_EQ(first->grant().function, 1u);
  EXPECT_EQ(second->grant().function, 2u);
  ASSERT_EQ(first->grant().gids.size(), 1u);
  EXPECT_EQ(first->grant().gids[0].gid, address_of(kAddress));
  EXPECT_EQ(first->grant().gids[0].interface_name, "lo");
  EXPECT_EQ(first->grant().udp_sockets.size(), 1u);
  EXPECT_NE(first->grant().node_guid, 0u);
  const rdma::WindowHeader& header = first->grant().window->header;
  EXPECT_EQ(header.magic, rdma::kWindowMagic);
  EXPECT_EQ(header.function, 1u);
  EXPECT_EQ(header.process_id, getpid());
  EXPECT_EQ(header.generation, first->grant().generation);

  // The next holder of a number gets a window of zeros and another generation.
  first->grant().window->queue_pairs[7].qpn = 77;
  const std::uint64_t generation = first->grant().generation;
  first.reset();
  watcher_.detached.acquire();
  auto third = attach();
  EXPECT_EQ(third->grant().function, 1u);
  EXPECT_NE(third->grant().generation, generation);
  EXPECT_EQ(third->grant().window->queue_pairs[7].qpn, 0u);
}

TEST_F(FunctionServiceTest, SteersDatagramsToTheHolderAndNeverToTheNext) {
  auto client = attach();
  auto sender = std::move(*os::UdpSocket::open({.address = address_of(kAddress)}));
  const auto send_to_function_one = [&] {
    std::array<std::byte, 16> datagram{};
    datagram[6] = std::byte{0x40};  // QPN 0x004000: function 1.
    const iovec part = os::part_of(datagram);
    const os::OutgoingDatagramRun run{
        .source = address_of(kAddress),
        .destination = address_of(kAddress),
        .destination_port = place_->groups()[0]->port(),
        .parts = {&part, 1},
        .bytes = 16,
        .segment_bytes = 16};
    sender->send({&run, 1});
  };
  const auto arrived = [](attach::AttachClient& holder) {
    char byte = 0;
    return recv(holder.grant().udp_sockets[0].get(), &byte, 1, MSG_DONTWAIT) == 1;
  };
  send_to_function_one();
  EXPECT_TRUE(arrived(*client));

  // One lies unread when the holder goes, one arrives while nobody is there.
  send_to_function_one();
  client.reset();
  watcher_.detached.acquire();
  send_to_function_one();
  auto next = attach();
  ASSERT_EQ(next->grant().function, 1u);
  EXPECT_FALSE(arrived(*next));
  send_to_function_one();
  EXPECT_TRUE(arrived(*next));
}

TEST_F(FunctionServiceTest, FindsTheNeighbourOnThisHost) {
  auto one = attach(attach::ChannelWish::kAuto, "db-1");
  auto other = attach();
  auto granted = one->admit(request(qpn_of(one), qpn_of(other)));
  ASSERT_TRUE(granted) << granted.error().message;
  EXPECT_EQ(granted->allowed_access, kAllAccess);
  ASSERT_TRUE(granted->neighbour);
  EXPECT_EQ(&granted->neighbour->window() == other->grant().window, false);  // Its own mapping,
  EXPECT_EQ(granted->neighbour->window().header.function, 2u);               // of the same memory.
  std::uint64_t read = 0;
  const std::uint64_t there = 7;
  const iovec to{&read, sizeof read};
  const iovec from{const_cast<std::uint64_t*>(&there), sizeof there};
  EXPECT_EQ(granted->neighbour->memory().read({&to, 1}, {&from, 1}), 8);  // Of this process.
  EXPECT_EQ(read, there);
  EXPECT_FALSE(granted->neighbour->closed());

  // Known already: the same object, not a second mapping.
  EXPECT_EQ(one->admit(request(qpn_of(one), qpn_of(other)))->neighbour, granted->neighbour);

  // What the gate was asked, both labels included.
  const AdmissionQuestion asked = on_loop([&] { return gate_.last; });
  EXPECT_EQ(asked.label, "db-1");
  EXPECT_EQ(asked.remote_label, "host-label");
  EXPECT_EQ(asked.dest_qpn, qpn_of(other));

  // When the neighbour goes, its window says so and our bell rings.
  other.reset();
  watcher_.detached.acquire();
  EXPECT_TRUE(granted->neighbour->closed());
  const int bell = one->grant().doorbell_fd;
  EXPECT_TRUE(os::wait_readable({&bell, 1}, 0));
}

TEST_F(FunctionServiceTest, HasNoNeighbourWhereRoceWasWishedOrTheAddressIsNotOurs) {
  auto one = attach();
  auto by_roce = attach(attach::ChannelWish::kRoce);
  EXPECT_FALSE(one->admit(request(qpn_of(one), qpn_of(by_roce)))->neighbour);
  EXPECT_FALSE(by_roce->admit(request(qpn_of(by_roce), qpn_of(one)))->neighbour);
  auto elsewhere = request(qpn_of(one), qpn_of(by_roce));
  elsewhere.remote_gid = address_of("192.0.2.9");
  EXPECT_FALSE(one->admit(elsewhere)->neighbour);
  // Nobody has that function.
  EXPECT_FALSE(one->admit(request(qpn_of(one), 99u << rdma::kFunctionShift))->neighbour);
}

TEST_F(FunctionServiceTest, RefusesWhatThePolicyDeniesAndWhatIsNotTheAskersOwn) {
  auto client = attach();
  on_loop([&] { gate_.answer = {.allowed = false, .rule = "no strangers"}; });
  const auto denied = client->admit(request(qpn_of(client), 9u << rdma::kFunctionShift));
  ASSERT_FALSE(denied);
  EXPECT_EQ(denied.error().code, ErrorCode::kDenied);
  EXPECT_THAT(denied.error().message, testing::HasSubstr("no strangers"));

  on_loop([&] { gate_.answer = {.allowed = true, .peer_access = kAllAccess}; });
  const auto foreign_qp = client->admit(request(2u << rdma::kFunctionShift, 1));
  EXPECT_EQ(foreign_qp.error().code, ErrorCode::kInvalid);
  auto foreign_address = request(qpn_of(client), 1);
  foreign_address.local_gid = address_of("127.9.9.9");
  EXPECT_EQ(client->admit(foreign_address).error().code, ErrorCode::kInvalid);
  // The connection is none the worse for it.
  EXPECT_TRUE(client->admit(request(qpn_of(client), 1)));
}

TEST_F(FunctionServiceTest, RevokesAndRestrictsWhenThePolicyChanges) {
  auto client = attach();
  const std::uint32_t qpn = qpn_of(client);
  ASSERT_TRUE(client->admit(request(qpn, 1)));
  on_loop([&] { gate_.answer.peer_access = IBV_ACCESS_REMOTE_READ; });
  EXPECT_EQ(on_loop([&] { return functions_->reevaluate(); }), 1u);
  attach::AttachEvent event = wait_event(*client);
  EXPECT_EQ(event.kind, attach::AttachEventKind::kRestrict);
  EXPECT_EQ(event.qpn, qpn);
  EXPECT_EQ(event.access, std::uint32_t{IBV_ACCESS_REMOTE_READ});
  client->acknowledge(event);

  // Nothing more to lose; then everything.
  EXPECT_EQ(on_loop([&] { return functions_->reevaluate(); }), 0u);
  on_loop([&] { gate_.answer.allowed = false; });
  EXPECT_EQ(on_loop([&] { return functions_->reevaluate(); }), 1u);
  event = wait_event(*client);
  EXPECT_EQ(event.kind, attach::AttachEventKind::kRevoke);
  client->acknowledge(event);

  // A queue pair that was released is nobody's business any more.
  client->release(qpn);
  EXPECT_TRUE(client->admit(request(qpn, 1)).error().code == ErrorCode::kDenied);
  EXPECT_EQ(on_loop([&] { return functions_->reevaluate(); }), 0u);
  EXPECT_EQ(on_loop([&] { return functions_->counters().not_acknowledged; }), 0u);
}

TEST_F(FunctionServiceTest, CutsOffWhoDoesNotObeyUntilHeDoes) {
  auto client = attach();
  ASSERT_TRUE(client->admit(request(qpn_of(client), 1)));
  EXPECT_TRUE(on_loop([&] { return functions_->revoke(qpn_of(client)).has_value(); }));
  ASSERT_TRUE(watcher_.cut_off.try_acquire_for(std::chrono::seconds(10)));
  EXPECT_TRUE(on_loop([&] { return functions_->find(1)->steered_away; }));

  const attach::AttachEvent event = wait_event(*client);
  client->acknowledge(event);
  // A request behind it is answered after the loop has seen the acknowledgement, or in the turn
  // after that: two make sure.
  EXPECT_TRUE(client->admit(request(qpn_of(client), 1)));
  EXPECT_TRUE(client->admit(request(qpn_of(client), 1)));
  EXPECT_FALSE(on_loop([&] { return functions_->find(1)->steered_away; }));
}

TEST_F(FunctionServiceTest, TellsTheOtherEvents) {
  auto client = attach();
  const std::uint32_t qpn = qpn_of(client);
  on_loop([&] { (void)functions_->change_channel(qpn, rdma::ChannelKind::kMemory); });
  attach::AttachEvent event = wait_event(*client);
  EXPECT_EQ(event.kind, attach::AttachEventKind::kChannel);
  EXPECT_EQ(event.channel, rdma::ChannelKind::kMemory);

  auto file = os::create_shared_memory("test", 4096);
  on_loop([&] { (void)functions_->start_capture(1, *file); });
  event = wait_event(*client);
  EXPECT_EQ(event.kind, attach::AttachEventKind::kCapture);
  EXPECT_TRUE(os::same_shared_memory(event.capture, *file));

  on_loop([&] { functions_->announce_gids(*place_); });
  event = wait_event(*client);
  EXPECT_EQ(event.kind, attach::AttachEventKind::kGids);
  EXPECT_EQ(event.gids, client->grant().gids);

  on_loop([&] { functions_->announce_closing(); });
  EXPECT_EQ(wait_event(*client).kind, attach::AttachEventKind::kClosing);
  EXPECT_EQ(on_loop([&] { return functions_->revoke(9u << rdma::kFunctionShift); }).error().code,
            ErrorCode::kNotFound);
}

TEST_F(FunctionServiceTest, ClosesWhoTalksNonsenseAndNobodyElse) {
  auto good = attach();
  auto connection = os::connect_unix(socket_path_);
  ASSERT_TRUE(connection);
  const std::array<std::byte, 8> nonsense{};
  ASSERT_TRUE(os::send_message(*connection, nonsense, {}));
  std::array<std::byte, attach::kAttachMaxMessageBytes> buffer;
  const auto answer = attach::receive_answer(*connection, buffer);
  ASSERT_TRUE(answer);
  EXPECT_FALSE(attach::decode_welcome(std::span(buffer).first(answer->bytes)));
  EXPECT_EQ(attach::receive_answer(*connection, buffer).error().code, ErrorCode::kClosed);

  // After a good greeting: the function is gone with the first bad request.
  auto second = os::connect_unix(socket_path_);
  const attach::Hello hello =
      attach::hello_of(attach::ConnectionKind::kFunction, {.socket_path = socket_path_});
  ASSERT_TRUE(os::send_message(*second, attach::message_bytes(hello), {}));
  ASSERT_TRUE(attach::receive_answer(*second, buffer));
  ASSERT_TRUE(os::send_message(*second, nonsense, {}));
  watcher_.detached.acquire();
  EXPECT_EQ(on_loop([&] { return functions_->count(); }), 1u);
  EXPECT_TRUE(good->admit(request(qpn_of(good), 1)));
}

TEST_F(FunctionServiceTest, GivesAFunctionBackToItsOwnProcessOnly) {
  auto client = attach();
  const attach::FunctionGrant& grant = client->grant();
  const auto come_back_with = [&](std::uint64_t generation, const os::Fd& window) {
    auto connection = os::connect_unix(socket_path_);
    attach::Hello hello =
        attach::hello_of(attach::ConnectionKind::kReattach, {.socket_path = socket_path_});
    hello.function = grant.function;
    hello.generation = generation;
    const std::array fds{window.get(), grant.doorbell_fd};
    EXPECT_TRUE(os::send_message(*connection, attach::message_bytes(hello), fds));
    std::array<std::byte, attach::kAttachMaxMessageBytes> buffer;
    const auto answer = attach::receive_answer(*connection, buffer);
    EXPECT_TRUE(answer);
    return attach::decode_grant(std::span(buffer).first(answer->bytes)).has_value();
  };
  const auto other = os::create_shared_memory("test", sizeof(rdma::Window));
  EXPECT_FALSE(come_back_with(grant.generation, *other));
  const os::Fd window = on_loop([&] {
    return std::move(*functions_->find(1)->window_file.duplicate());
  });
  EXPECT_FALSE(come_back_with(grant.generation + 1, window));
  EXPECT_EQ(on_loop([&] { return functions_->counters().refused; }), 2u);
  EXPECT_TRUE(come_back_with(grant.generation, window));
  EXPECT_EQ(on_loop([&] { return functions_->counters().reattached; }), 1u);
}

TEST_F(FunctionServiceTest, SaysWhenEveryFunctionIsInUse) {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  // Of each function there are: ours, theirs, and copies in the message that nobody reads.
  if (limit.rlim_cur < 20'000) GTEST_SKIP() << "needs 20000 descriptors: ulimit -n";
  std::vector<os::Fd> connections;
  const attach::Hello hello =
      attach::hello_of(attach::ConnectionKind::kFunction, {.socket_path = socket_path_});
  std::array<std::byte, attach::kAttachMaxMessageBytes> buffer;
  for (std::uint32_t i = 1; i <= rdma::kFunctionCount; ++i) {
    auto connection = os::connect_unix(socket_path_);
    ASSERT_TRUE(connection) << connection.error().message;
    ASSERT_TRUE(os::send_message(*connection, attach::message_bytes(hello), {}));
    const auto answer = attach::receive_answer(*connection, buffer);
    ASSERT_TRUE(answer) << answer.error().message;
    const auto grant = attach::decode_grant(std::span(buffer).first(answer->bytes));
    if (i == rdma::kFunctionCount) {
      ASSERT_FALSE(grant);
      EXPECT_EQ(grant.error().code, ErrorCode::kNoMemory);
      EXPECT_THAT(grant.error().message, testing::HasSubstr("all 1023 functions"));
      break;
    }
    ASSERT_TRUE(grant) << grant.error().message;
    EXPECT_EQ(grant->function, i);
    connections.push_back(std::move(*connection));
  }
}

}  // namespace
}  // namespace isthmus::control
