// Goal: what the backend says arrives at the client as it was, errors with their code and words;
// streams end when either side wants; a daemon whose loop is stuck or gone gives a clear error.
// Method: a real server and client over a socket in a temporary folder, a backend of fixed answers,
// and a loop that is a thread with a queue.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <future>
#include <mutex>
#include <thread>

#include "control/grpc/control_client.h"
#include "control/grpc/control_server.h"

namespace isthmus::control {
namespace {

// Stands for the daemon's event loop.
class Loop {
 public:
  Loop() : thread_([this] { run(); }) {}
  ~Loop() {
    stop();
    thread_.join();
  }
  bool post(std::function<void()> work) {
    const std::lock_guard lock{mutex_};
    if (stopped_) return false;
    queue_.push_back(std::move(work));
    changed_.notify_all();
    return true;
  }
  void stop() {
    const std::lock_guard lock{mutex_};
    stopped_ = true;
    changed_.notify_all();
  }

 private:
  void run() {
    std::unique_lock lock{mutex_};
    for (;;) {
      changed_.wait(lock, [&] { return stopped_ || !queue_.empty(); });
      if (stopped_) return;
      auto work = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      work();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool stopped_ = false;
  std::thread thread_;
};

StatusReport sample_status() {
  return {.label = "left",
          .version = "1.2",
          .process_id = 42,
          .private_daemon = true,
          .taken_ns = 7'000,
          .started_ns = 1'000,
          .addresses = {"10.77.0.1", "fd77::1"},
          .socket = "/tmp/x.sock",
          .functions = {{.index = 3,
                         .generation = 9,
                         .process_id = 77,
                         .program = "rping",
                         .label = "client",
                         .queue_pair_count = 1,
                         .memory_region_count = 2,
                         .completion_queue_count = 3,
                         .registered_bytes = 1u << 30,
                         .traffic = {1, 2, 3, 4, 5, 6, 7, 8},
                         .queue_pairs = {{.qpn = 0xc001,
                                          .type = "RC",
                                          .state = "RTS",
                                          .local_gid = "10.77.0.1",
                                          .remote_gid = "10.77.0.2",
                                          .dest_qpn = 0x10001,
                                          .channel = "roce",
                                          .access = 7,
                                          .traffic = {8, 7, 6, 5, 4, 3, 2, 1}}},
                         .memory_regions =
                             {{.key = 5, .iova = 1, .length = 2, .access = 3, .window = true}}}},
          .counters = {{"requests", 12}}};
}

class FixedBackend final : public ControlBackend {
 public:
  VersionReport version() override { return {.version = "1.2", .process_id = 42}; }
  StatusReport status(const StatusDetail&) override {
    ++status_calls;
    return sample_status();
  }
  PolicyReport policy() override {
    return {.document = "default = \"allow\"\n",
            .name = "p.toml",
            .connections = {{.qpn = 5,
                             .process_id = 6,
                             .program = "rping",
                             .from = "a",
                             .to = "b",
                             .port = 7174,
                             .transport = "RC",
                             .decision = "deny",
                             .rights = "send",
                             .rule = "default",
                             .changed = true}}};
  }
  Result<PolicyReport> change_policy(const PolicyChange& change) override {
    if (change.document.empty()) return fail(ErrorCode::kInvalid, "line 1: nothing here");
    return PolicyReport{.document = change.document,
                        .name = change.action == PolicyAction::kApply ? "applied" : "checked"};
  }
  Result<std::uint32_t> change_channel(const ChannelChange& change) override {
    if (change.kind != "roce") return fail(ErrorCode::kNotFound, "no such queue pair");
    return change.all ? 9u : change.qpn;
  }
  Result<void> capture(std::uint32_t, std::weak_ptr<PacketSink> sink) override {
    PacketBatchReport batch{.packets = {packet(1), packet(2)}, .dropped = 3};
    if (auto open = sink.lock()) open->push(std::move(batch));
    last_sink = std::move(sink);
    return {};
  }
  static PacketReport packet(std::uint64_t timestamp) {
    return {.timestamp_ns = timestamp,
            .incoming = true,
            .memory_channel = true,
            .source = wire::IpAddress::from_v4(0x0a4d'0001),
            .destination = wire::IpAddress::from_v4(0x0a4d'0002),
            .source_port = 4791,
            .ip_id = 4,
            .original_bytes = 99,
            .payload = {std::byte{0xff}, std::byte{0}, std::byte{0x80}},
            .process_id = 77,
            .local_qpn = 0xc001};
  }

  std::atomic<int> status_calls = 0;
  std::weak_ptr<PacketSink> last_sink;
};

class ControlGrpc : public ::testing::Test {
 protected:
  ControlGrpc() {
    char folder[] = "/tmp/isthmus-control-XXXXXX";
    folder_ = mkdtemp(folder);
    path_ = folder_ + "/d.control.sock";
    server_ =
        std::move(ControlServer::create(
                      path_, [this](auto work) { return loop_.post(std::move(work)); }, backend_))
            .value();
    client_ = std::move(ControlClient::connect(path_)).value();
  }
  ~ControlGrpc() override {
    client_.reset();
    end_server();
    unlink(path_.c_str());
    rmdir(folder_.c_str());
  }

  // On the loop, as the daemon does; here, when the loop has ended.
  void end_server() {
    std::promise<void> done;
    const auto end = [&] {
      server_.reset();
      done.set_value();
    };
    if (!loop_.post(end)) end();
    done.get_future().wait();
  }

  std::string folder_;
  std::string path_;
  FixedBackend backend_;
  Loop loop_;
  std::unique_ptr<ControlServer> server_;
  std::unique_ptr<ControlClient> client_;
};

TEST_F(ControlGrpc, CarriesEveryField) {
  EXPECT_EQ(client_->version().value().version, "1.2");
  EXPECT_EQ(client_->status({}).value(), sample_status());
  EXPECT_EQ(client_->policy().value(), backend_.policy());
}

TEST_F(ControlGrpc, CarriesErrorsWithCodeAndWords) {
  const auto refused = client_->change_policy({});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kInvalid);
  EXPECT_EQ(refused.error().message, "line 1: nothing here");
  EXPECT_EQ(client_->change_policy({.document = "x"}).value().name, "checked");
  EXPECT_EQ(client_->change_policy({.document = "x", .action = PolicyAction::kApply})->name,
            "applied");
  EXPECT_EQ(client_->change_channel({.qpn = 5, .kind = "roce"}).value(), 5u);
  EXPECT_EQ(client_->change_channel({.kind = "?"}).error().code, ErrorCode::kNotFound);
}

TEST_F(ControlGrpc, WatchesUntilTheReaderHasEnough) {
  int seen = 0;
  const auto done = client_->watch_status({}, 100, [&](StatusReport report) {
    EXPECT_EQ(report, sample_status());
    return ++seen == 3 ? Continue::kNo : Continue::kYes;
  });
  EXPECT_TRUE(done) << done.error().message;
  EXPECT_EQ(seen, 3);
  EXPECT_GE(backend_.status_calls, 3);
}

TEST_F(ControlGrpc, CarriesPacketsAndLetsGoOfTheCapture) {
  std::vector<PacketReport> packets;
  std::uint64_t dropped = 0;
  const auto done = client_->capture(0, [&](PacketBatchReport batch) {
    packets.insert(packets.end(), batch.packets.begin(), batch.packets.end());
    dropped = batch.dropped;
    return packets.size() == 2 ? Continue::kNo : Continue::kYes;
  });
  EXPECT_TRUE(done) << done.error().message;
  EXPECT_EQ(packets, (std::vector{FixedBackend::packet(1), FixedBackend::packet(2)}));
  EXPECT_EQ(dropped, 3u);
  end_server();  // Waits for the calls.
  EXPECT_TRUE(backend_.last_sink.expired());
}

TEST_F(ControlGrpc, CancelEndsAStreamWithoutAnError) {
  std::thread canceller;
  const auto done = client_->watch_status({}, 60'000, [&](StatusReport) {
    canceller = std::thread([&] { client_->cancel(); });
    return Continue::kYes;
  });
  canceller.join();
  EXPECT_TRUE(done) << done.error().message;
}

TEST_F(ControlGrpc, SaysThatTheDaemonIsEnding) {
  loop_.stop();
  const auto answer = client_->status({});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, ErrorCode::kClosed);
}

TEST_F(ControlGrpc, EndsAStreamWhenTheServerGoes) {
  const auto done = client_->watch_status({}, 60'000, [&](StatusReport) {
    end_server();
    return Continue::kYes;
  });
  // Either is right: the server ended the stream, or its socket was closed first.
  if (!done) {
    EXPECT_EQ(done.error().code, ErrorCode::kClosed) << done.error().message;
  }
}

TEST_F(ControlGrpc, SocketIsForItsOwnerAlone) {
  struct stat found {};
  ASSERT_EQ(stat(path_.c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 0777, 0700u);
}

TEST(ControlClient, TellsAbsentFromDead) {
  EXPECT_EQ(ControlClient::connect("/tmp/isthmus-no-such.sock").error().code, ErrorCode::kNotFound);
}

TEST(ControlSocketPath, StandsBesideTheAttachSocket) {
  EXPECT_EQ(control_socket_path("/run/isthmus/isthmusd.sock"),
            "/run/isthmus/isthmusd.control.sock");
  EXPECT_EQ(control_socket_path("/tmp/d"), "/tmp/d.control");
}

}  // namespace
}  // namespace isthmus::control
