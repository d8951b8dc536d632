// Goal: the directory in etcd does what every directory does, and answers in time when etcd does
// not.
// Method: the common suite on one real etcd for all tests; one that is killed and started again,
// frozen, or never was.
#include "cluster/etcd/etcd_directory.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "base/assert.h"
#include "cluster/directory/directory_suite_time.h"
#include "os/clock.h"

namespace isthmus::cluster {
namespace {

// An etcd of the test's own: on free ports of the loopback, in a temporary folder, killed with it.
class EtcdServer {
 public:
  // Null, and the reason, when none can be had here.
  static std::unique_ptr<EtcdServer> start(std::string& reason) {
    std::unique_ptr<EtcdServer> server{new EtcdServer};
    // Somebody may take a port between our finding it free and etcd.
    for (int attempt = 0; attempt < 3; ++attempt) {
      server->choose_ports();
      server->run();
      if (server->is_answering()) return server;
      if (server->exit_status_ == 127) {
        reason = "etcd is not installed (Debian: etcd-server)";
        return nullptr;
      }
      server->end();
    }
    std::stringstream log;
    log << std::ifstream(server->folder_ / "log").rdbuf();
    ADD_FAILURE() << "etcd does not answer: " << server->answer_ << "\n" << log.str();
    reason = "etcd does not answer";
    return nullptr;
  }
  ~EtcdServer() {
    end();
    std::filesystem::remove_all(folder_);
  }
  EtcdServer(const EtcdServer&) = delete;
  EtcdServer& operator=(const EtcdServer&) = delete;

  std::string target() const { return "127.0.0.1:" + std::to_string(client_port_); }
  void end() {
    if (process_ < 0) return;
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
    process_ = -1;
  }
  void start_again() {
    run();
    ISTHMUS_ASSERT(is_answering());
  }
  // Returns when all its threads have stopped: until then one may still answer.
  void freeze() {
    kill(process_, SIGSTOP);
    waitpid(process_, nullptr, WUNTRACED);
  }
  void thaw() { kill(process_, SIGCONT); }

 private:
  EtcdServer() {
    std::string name = (std::filesystem::temp_directory_path() / "isthmus-etcd-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }

  static int free_port() {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t bytes = sizeof address;
    // SAFETY: the sockets interface wants every address by the common base type.
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    ISTHMUS_ASSERT(bind(fd, generic, bytes) == 0 && getsockname(fd, generic, &bytes) == 0);
    close(fd);
    return ntohs(address.sin_port);
  }
  void choose_ports() {
    client_port_ = free_port();
    peer_port_ = free_port();
  }

  void run() {
    const std::string client = "http://" + target();
    const std::string peer = "http://127.0.0.1:" + std::to_string(peer_port_);
    // A short election time-out allows leases of one second.
    std::vector<std::string> words{"etcd", "--name", "test", "--data-dir", folder_ / "data",
                                   "--listen-client-urls", client, "--advertise-client-urls",
                                   client, "--listen-peer-urls", peer,
                                   "--initial-advertise-peer-urls", peer, "--initial-cluster",
                                   "test=" + peer, "--heartbeat-interval", "20",
                                   "--election-timeout", "200"};
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    const std::string log = folder_ / "log";
    const pid_t parent = getpid();
    exit_status_ = 0;
    process_ = fork();
    ISTHMUS_ASSERT(process_ >= 0);
    if (process_ > 0) return;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int fd = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (getppid() != parent || dup2(fd, 1) < 0 || dup2(fd, 2) < 0) _exit(1);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }

  // Waits until it does; false: it ended, or takes too long.
  bool is_answering() {
    auto directory = open_etcd_directory({.target = target(), .deadline_ms = 1000}).value();
    const std::uint64_t give_up_ns = os::now_ns() + 15 * os::kNsPerSecond;
    while (os::now_ns() < give_up_ns) {
      int status = 0;
      if (waitpid(process_, &status, WNOHANG) == process_) {
        exit_status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        process_ = -1;
        return false;
      }
      const auto listed = directory->list("nothing");
      if (listed) return true;
      answer_ = listed.error().message;
      usleep(20'000);  // It tells nobody when it is ready.
    }
    return false;
  }

  std::filesystem::path folder_;
  int client_port_ = 0;
  int peer_port_ = 0;
  pid_t process_ = -1;
  int exit_status_ = 0;
  std::string answer_;  // Why it was not answering.
};

// Starts with the first test that wants it, ends with the program's tests.
class SharedServer final : public testing::Environment {
 public:
  EtcdServer* get(std::string& reason) {
    if (!is_tried_) server_ = EtcdServer::start(reason_);
    is_tried_ = true;
    reason = reason_;
    return server_.get();
  }
  void TearDown() override { server_.reset(); }

 private:
  bool is_tried_ = false;
  std::string reason_;
  std::unique_ptr<EtcdServer> server_;
};

SharedServer& shared_server() {
  static auto* environment = new SharedServer;  // gtest deletes it.
  return *environment;
}
[[maybe_unused]] const auto* const registered =
    testing::AddGlobalTestEnvironment(&shared_server());

class EtcdBackend final : public DirectoryBackend {
 public:
  explicit EtcdBackend(EtcdServer& server) : server_(server) {}
  std::unique_ptr<Directory> open(std::uint64_t patience_ms) override {
    return open_etcd_directory({.target = server_.target(), .deadline_ms = patience_ms}).value();
  }
  void pass(std::uint64_t) override {}  // Its clock is the host's.
  void prepare_outage() override {}
  void begin_outage() override { server_.end(); }
  void end_outage() override { server_.start_again(); }

 private:
  EtcdServer& server_;
};

const BackendKind kEtcd{[](std::string& reason) -> std::unique_ptr<DirectoryBackend> {
  EtcdServer* server = shared_server().get(reason);
  return server != nullptr ? std::make_unique<EtcdBackend>(*server) : nullptr;
}};
INSTANTIATE_TEST_SUITE_P(Etcd, DirectorySuite, testing::Values(kEtcd),
                         [](const auto&) { return std::string("server"); });

TEST(EtcdDirectory, AnswersInTimeWhenThereIsNoEtcd) {
  // The discard port: nobody listens there.
  auto directory = open_etcd_directory({.target = "127.0.0.1:9", .deadline_ms = 50}).value();
  auto watch = directory->watch("", Revision{}).value();
  const std::uint64_t begin_ns = os::now_ns();
  EXPECT_EQ(code_of(directory->get("a")), ErrorCode::kUnreachable);
  EXPECT_EQ(code_of(directory->list("a")), ErrorCode::kUnreachable);
  EXPECT_EQ(code_of(directory->put("a", "")), ErrorCode::kUnreachable);
  EXPECT_EQ(code_of(directory->grant(1000)), ErrorCode::kUnreachable);
  EXPECT_EQ(code_of(directory->keep_alive(LeaseId{7})), ErrorCode::kUnreachable);
  EXPECT_EQ(code_of(directory->revoke(LeaseId{7})), ErrorCode::kUnreachable);
  EXPECT_EQ(code_of(directory->compact(Revision{1})), ErrorCode::kUnreachable);
  EXPECT_LT(os::now_ns() - begin_ns, 3 * os::kNsPerSecond) << "7 calls of 50 ms";
  EXPECT_TRUE(watch->next(10).value().empty());
  EXPECT_EQ(code_of(open_etcd_directory({.target = ""})), ErrorCode::kInvalid);
}

TEST(EtcdDirectory, AnswersInTimeWhenEtcdIsFrozen) {
  std::string reason;
  EtcdServer* server = shared_server().get(reason);
  if (server == nullptr) GTEST_SKIP() << reason;
  auto directory =
      open_etcd_directory({.target = server->target(), .deadline_ms = 300}).value();
  auto patient =
      open_etcd_directory({.target = server->target(), .deadline_ms = kPatienceMs}).value();
  const Revision before = patient->put("frozen/a", "1").value();
  auto watch = directory->watch("frozen/", Revision{before.number - 1}).value();
  EXPECT_EQ(watch->next(kPatienceMs).value().size(), 1u);

  server->freeze();
  const std::uint64_t begin_ns = os::now_ns();
  EXPECT_EQ(code_of(directory->get("frozen/a")), ErrorCode::kUnreachable);
  EXPECT_EQ(code_of(directory->keep_alive(LeaseId{7})), ErrorCode::kUnreachable);
  // Ended before it could begin; its end waits for nobody.
  (void)directory->watch("frozen/", Revision{}).value();
  EXPECT_LT(os::now_ns() - begin_ns, 3 * os::kNsPerSecond);
  server->thaw();

  EXPECT_TRUE(patient->put("frozen/b", "1"));
  EXPECT_EQ(watch->next(kPatienceMs).value().front().entry.key, "frozen/b");
}

}  // namespace
}  // namespace isthmus::cluster
