// Daemon: the services of isthmusd, put together.
//
// Threading: one loop thread, which constructs, runs and destroys it. gRPC has threads of its own
// and reaches the loop by EventLoop::post.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "apps/isthmusd_capture.h"
#include "apps/isthmusd_connections.h"
#include "apps/isthmusd_options.h"
#include "apps/isthmusd_site.h"
#include "base/result.h"
#include "control/attach_server.h"
#include "control/cm_policy.h"
#include "control/event_loop.h"
#include "control/function_service.h"
#include "control/grpc/control_backend.h"
#include "control/grpc/control_server.h"
#include "control/keeper_link.h"
#include "os/fd.h"

namespace isthmus::apps {

// A network namespace that nobody uses is let go of after this time: holding it open would keep a
// container's network alive after the container.
constexpr std::uint64_t kIdleSitePatienceNs = 10'000'000'000;

// For the answers to the last disconnect requests; until then the programs here learn of the end
// too.
constexpr std::uint64_t kFarewellPatienceNs = 200'000'000;

// The first program has this long to come to a private daemon.
constexpr std::uint64_t kFirstClientPatienceNs = 10'000'000'000;

class Daemon final : private control::ControlBackend, private control::FunctionObserver {
 public:
  // Holds the lock of its socket path; see isthmusd_instance.h. From return on it serves, as soon
  // as run() is called.
  static Result<std::unique_ptr<Daemon>> create(const DaemonOptions& options);
  ~Daemon() override;
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Until a signal says so, or until a private daemon has nobody left.
  void run();

 private:
  explicit Daemon(const DaemonOptions& options) : options_(options) {}
  Result<void> start();
  Result<void> load_policy();
  // `kept` is what an earlier daemon at this socket left, by network namespace.
  Result<void> open_sites(std::vector<control::KeptPlace> kept);
  Result<Site*> open_site(os::Fd network_namespace, control::KeptPlace kept);
  Result<void> listen();
  Site::Wiring wiring();

  // Connections.
  void on_function(os::Fd connection, control::Greeting greeting);
  void on_cm(os::Fd connection, control::Greeting greeting);
  // isthmusd_namespaces.cc
  Result<Site*> site_of(const os::PeerCredentials& credentials);
  Site* site_of(const control::Place* place);
  void close_idle_sites();

  // The end of a private daemon.
  void on_attached(const control::Function&) override { check_whether_needed(); }
  void on_detached(const control::Function&) override;
  void check_whether_needed();

  void on_signal();
  void end_for_good();
  void reload_policy();
  StandingConnections connections();
  std::uint32_t apply(cluster::PolicyDocument document, std::string text, std::string name);

  // ControlBackend.
  control::VersionReport version() override;
  control::StatusReport status(const control::StatusDetail& detail) override;
  control::PolicyReport policy() override;
  Result<control::PolicyReport> change_policy(const control::PolicyChange& change) override;
  Result<std::uint32_t> change_channel(const control::ChannelChange& change) override;
  Result<void> capture(std::uint32_t qpn, std::weak_ptr<control::PacketSink> sink) override;

  const DaemonOptions options_;
  std::string default_label_;
  std::uint64_t started_ns_ = 0;
  os::Fd signals_;
  std::optional<control::ClusterKey> cluster_key_;
  std::string policy_text_;
  std::string policy_name_;

  std::unique_ptr<control::EventLoop> loop_;
  std::unique_ptr<control::HostPolicy> host_policy_;
  std::unique_ptr<control::CmAdmissionGate> gate_;
  std::unique_ptr<control::FunctionService> functions_;
  std::unique_ptr<Captures> captures_;
  std::unique_ptr<control::KeeperLink> keeper_;
  std::vector<std::unique_ptr<Site>> sites_;  // The first is the daemon's own network namespace.
  std::unique_ptr<control::AttachServer> server_;
  std::unique_ptr<control::ControlServer> control_server_;
  bool had_client_ = false;
  bool ends_for_good_ = false;  // Else what programs have is left to the keeper.
};

}  // namespace isthmus::apps
