// Goal: after SIGKILL of the daemon, functions, their numbers, sockets and windows are what they
// were, the next daemon serves them, and new processes get other numbers.
// Method: daemon and keeper are real processes forked from the test, which is the client. They
// speak through pipes and sockets; what has happened is learned from events, not by waiting.
#include "control/keeper.h"

#include <gtest/gtest.h>
#include <infiniband/verbs.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <functional>

#include "attach/attach_client.h"
#include "base/assert.h"
#include "control/attach_server.h"
#include "control/keeper_link.h"
#include "os/clock.h"
#include "os/poll.h"
#include "os/process.h"
#include "os/udp_socket.h"
#include "os/unix_socket.h"

namespace isthmus::control {
namespace {

constexpr const char* kAddress = "127.1.2.5";

wire::IpAddress address_of(const char* text) { return *wire::IpAddress::parse(text); }

struct Paths {
  std::string attach;
  std::string keeper;
};

// A process that runs `body` and ends; gone with its object.
class Forked {
 public:
  explicit Forked(const std::function<void()>& body) : process_id_(fork()) {
    if (process_id_ != 0) return;
    body();
    _exit(0);
  }
  ~Forked() { kill_now(); }
  void kill_now() {
    if (process_id_ <= 0) return;
    kill(process_id_, SIGKILL);
    waitpid(process_id_, nullptr, 0);
    process_id_ = -1;
  }
  void detach() { process_id_ = -1; }

 private:
  pid_t process_id_;
};

void run_keeper(os::Fd daemon, const std::string& path) {
  signal(SIGPIPE, SIG_IGN);
  const auto loop = std::move(*EventLoop::create());
  Keeper keeper(*loop, std::move(daemon), path);
  ISTHMUS_ASSERT(keeper.start());
  loop->run();
}

// Says '+' on `ready` when it listens. With kFinish it ends by SIGTERM's default action only after
// it told the keeper; here it is always killed.
void run_daemon(const Paths& paths, std::uint16_t port, int ready) {
  signal(SIGPIPE, SIG_IGN);
  const auto loop = std::move(*EventLoop::create());
  OpenGate gate;
  FunctionService functions(*loop, gate, "host");
  KeeperLink link(*loop, [&]() -> Result<os::Fd> {
    auto [ours, theirs] = ISTHMUS_TRY(os::unix_socket_pair());
    // Only what it is given: a copy of this daemon's listener would look like the daemon itself.
    Forked keeper([&, end = theirs.get()] {
      const int number = dup2(end, 900);
      for (int fd = 3; fd < 900; ++fd) close(fd);
      run_keeper(os::Fd{number}, paths.keeper);
    });
    keeper.detach();
    return std::move(ours);
  });
  functions.add_observer(link);
  auto kept = link.take_over(paths.keeper);
  ISTHMUS_ASSERT(kept);
  KeptPlace before;
  if (!kept->empty()) before = std::move(kept->front());
  const auto opened = Place::open({.only = {address_of(kAddress)}, .port = port}, os::Fd{},
                                  std::move(before.groups));
  if (!opened) std::fprintf(stderr, "%s\n", opened.error().message.c_str());
  ISTHMUS_ASSERT(opened);
  const std::unique_ptr<Place>& place = *opened;
  for (KeptFunction& function : before.functions) functions.expect(std::move(function), *place);
  link.start();
  link.keep(*place);

  std::filesystem::remove(paths.attach);
  AttachServer server(*loop, std::move(*os::listen_unix(paths.attach, os::UnixAccess::kOwner)),
                      {.function = [&](os::Fd connection, Greeting greeting) {
                         functions.serve(std::move(connection), std::move(greeting), *place);
                       },
                       .cm = [](os::Fd, Greeting) {},
                       .holders_changed = [] {}});
  ISTHMUS_ASSERT(server.start());
  ISTHMUS_ASSERT(write(ready, "+", 1) == 1);
  loop->run();
}

class KeeperTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "isthmus-keeper-" + std::to_string(getpid());
    std::filesystem::create_directory(folder_);
    paths_ = {folder_ + "/d.sock", folder_ + "/d.keeper.sock"};
    port_ = (*os::UdpSocket::open({.address = address_of(kAddress)}))->port();
    start_daemon();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void start_daemon() {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const os::Fd reading{ends[0]};
    const os::Fd writing{ends[1]};
    daemon_ = std::make_unique<Forked>([&] { run_daemon(paths_, port_, writing.get()); });
    char byte = 0;
    ASSERT_EQ(read(reading.get(), &byte, 1), 1);
  }

  std::unique_ptr<attach::AttachClient> attach() {
    auto client = attach::AttachClient::connect({.socket_path = paths_.attach});
    EXPECT_TRUE(client) << client.error().message;
    return std::move(*client);
  }

  static attach::AttachEvent wait_event(attach::AttachClient& client) {
    while (true) {
      const int fd = client.event_fd();
      EXPECT_TRUE(os::wait_readable({&fd, 1}, 20 * os::kNsPerSecond)) << "no event";
      if (auto event = client.next_event()) return std::move(*event);
    }
  }

  // Whether a datagram for its first queue pair reaches the client's socket.
  bool is_reached(attach::AttachClient& client) {
    const auto sender = std::move(*os::UdpSocket::open({.address = address_of(kAddress)}));
    std::array<std::byte, 16> datagram{};
    datagram[6] = std::byte(client.grant().function << 6);
    const iovec part = os::part_of(datagram);
    const os::OutgoingDatagramRun run{.source = address_of(kAddress),
                                      .destination = address_of(kAddress),
                                      .destination_port = port_,
                                      .parts = {&part, 1},
                                      .bytes = 16,
                                      .segment_bytes = 16};
    sender->send({&run, 1});
    char byte = 0;
    return recv(client.grant().udp_sockets[0].get(), &byte, 1, MSG_DONTWAIT) == 1;
  }

  std::string folder_;
  Paths paths_;
  std::uint16_t port_ = 0;
  std::unique_ptr<Forked> daemon_;
};

TEST_F(KeeperTest, FunctionsSurviveTheDaemon) {
  auto one = attach();
  auto two = attach();
  ASSERT_EQ(two->grant().function, 2u);
  ASSERT_TRUE(is_reached(*two));

  // Without a daemon the network still finds its way.
  daemon_->kill_now();
  EXPECT_TRUE(is_reached(*one));
  EXPECT_TRUE(is_reached(*two));

  // The next daemon takes over; both come back by themselves, as what they were.
  start_daemon();
  EXPECT_EQ(wait_event(*one).kind, attach::AttachEventKind::kGids);
  EXPECT_EQ(wait_event(*two).kind, attach::AttachEventKind::kGids);
  EXPECT_EQ(one->grant().window->header.closed, 0u);
  EXPECT_TRUE(is_reached(*one));
  EXPECT_TRUE(is_reached(*two));

  // It admits their connections, knows them as neighbours, and has new numbers for others.
  const auto granted = one->admit({.qpn = 1u << rdma::kFunctionShift,
                                   .dest_qpn = 2u << rdma::kFunctionShift,
                                   .local_gid = address_of(kAddress),
                                   .remote_gid = address_of(kAddress),
                                   .transport = IBV_QPT_RC});
  ASSERT_TRUE(granted) << granted.error().message;
  EXPECT_TRUE(granted->neighbour);
  auto three = attach();
  EXPECT_EQ(three->grant().function, 3u);
  EXPECT_TRUE(is_reached(*three));
}

TEST_F(KeeperTest, AnAdmissionWaitsForTheNextDaemon) {
  auto client = attach();
  daemon_->kill_now();
  start_daemon();
  // Nobody has called next_event(): the request itself brings the client back.
  const auto granted = client->admit({.qpn = 1u << rdma::kFunctionShift,
                                      .dest_qpn = 9u << rdma::kFunctionShift,
                                      .local_gid = address_of(kAddress),
                                      .remote_gid = address_of("192.0.2.1"),
                                      .transport = IBV_QPT_RC});
  EXPECT_TRUE(granted) << granted.error().message;
}

TEST_F(KeeperTest, SurvivesASecondEndOfTheDaemon) {
  auto client = attach();
  for (int i = 0; i < 2; ++i) {
    daemon_->kill_now();
    start_daemon();
    EXPECT_EQ(wait_event(*client).kind, attach::AttachEventKind::kGids);
    EXPECT_TRUE(is_reached(*client));
  }
}

TEST_F(KeeperTest, GivesTheNumberOfADeadProcessToNobodyElseTooEarly) {
  // A process with function 1 dies while there is no daemon; function 2 lives on.
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  Forked short_lived([&] {
    const auto client = attach();
    ISTHMUS_ASSERT(write(ends[1], "+", 1) == 1);
    pause();
  });
  char byte = 0;
  ASSERT_EQ(read(ends[0], &byte, 1), 1);
  auto survivor = attach();
  ASSERT_EQ(survivor->grant().function, 2u);
  daemon_->kill_now();
  short_lived.kill_now();
  start_daemon();
  EXPECT_EQ(wait_event(*survivor).kind, attach::AttachEventKind::kGids);
  auto next = attach();
  EXPECT_EQ(next->grant().function, 3u);  // 1 is kept for its owner for a while.
}

TEST(Keeper, HearsTheLastWordsOfADaemonBeforeTheNextOneAsks) {
  const std::string path = testing::TempDir() + "isthmus-keeper-" + std::to_string(getpid());
  const auto loop = std::move(*EventLoop::create());
  auto [daemon, theirs] = std::move(*os::unix_socket_pair());
  Keeper keeper(*loop, std::move(theirs), path);
  ASSERT_TRUE(keeper.start());
  const auto say = [](const os::Fd& to, const KeeperRecord& record, std::vector<int> fds) {
    EXPECT_TRUE(os::send_message(to, std::as_bytes(std::span(&record, 1)), fds));
  };
  std::array<std::byte, sizeof(KeeperRecord)> buffer;
  EXPECT_TRUE(os::receive_message(daemon, buffer)) << "it did not say that it listens";

  // All of this happens before the keeper's loop runs; the first daemon is killed.
  constexpr int kAny = STDERR_FILENO;
  say(daemon, {.kind = KeeperRecordKind::kMember}, {kAny});
  for (const std::uint32_t index : {5u, 6u}) {
    say(daemon,
        {.kind = KeeperRecordKind::kFunction, .index = index, .process_id = getpid()},
        {kAny, kAny});
  }
  daemon.reset();
  const os::Fd next = std::move(*os::connect_unix(path));
  say(next, {.kind = KeeperRecordKind::kTakeOver}, {});
  say(next, {.kind = KeeperRecordKind::kFinish}, {});
  loop->run();

  // Expect: the next one gets everything.
  for (const auto kind : {KeeperRecordKind::kMember, KeeperRecordKind::kFunction,
                          KeeperRecordKind::kFunction, KeeperRecordKind::kEnd}) {
    const auto received = os::receive_message(next, buffer);
    ASSERT_TRUE(received);
    const auto record = decode_keeper_record(buffer, received->fds.size());
    ASSERT_TRUE(record);
    EXPECT_EQ(record->kind, kind);
  }
}

TEST(KeeperProtocol, TakesRecordsWithTheirDescriptorsOnly) {
  KeeperRecord record{.kind = KeeperRecordKind::kFunction, .index = 5};
  const auto bytes = std::as_bytes(std::span(&record, 1));
  EXPECT_TRUE(decode_keeper_record(bytes, 2));
  EXPECT_FALSE(decode_keeper_record(bytes, 1));
  EXPECT_FALSE(decode_keeper_record(bytes.first(55), 2));
  record.index = 1024;
  EXPECT_FALSE(decode_keeper_record(bytes, 2));
  record.index = 5;
  record.kind = KeeperRecordKind{99};
  EXPECT_FALSE(decode_keeper_record(bytes, 2));
  record.kind = KeeperRecordKind::kEnd;
  EXPECT_TRUE(decode_keeper_record(bytes, 0));
  record.magic = 0;
  EXPECT_FALSE(decode_keeper_record(bytes, 0));
}

}  // namespace
}  // namespace isthmus::control
