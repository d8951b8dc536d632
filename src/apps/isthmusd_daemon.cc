#include "apps/isthmusd_daemon.h"

#include <signal.h>

#include <algorithm>

#include "attach/attach_protocol.h"
#include "base/log.h"
#include "cluster/policy_toml.h"
#include "os/clock.h"
#include "os/companion_process.h"
#include "os/lock_file.h"
#include "os/netns.h"
#include "os/process.h"
#include "os/signal_fd.h"
#include "os/text_file.h"
#include "os/unix_socket.h"

namespace isthmus::apps {
namespace {

void refuse(const os::Fd& connection, const control::Greeting& greeting, const Error& error) {
  ISTHMUS_LOG(kWarning, "refused process %d (%s): %s", greeting.credentials.process_id,
              greeting.hello.program.data(), error.message.c_str());
  const attach::Failure failure = attach::failure_of(error);
  (void)os::send_message(connection, attach::message_bytes(failure), {});  // Or it is gone.
}

}  // namespace

Result<std::unique_ptr<Daemon>> Daemon::create(const DaemonOptions& options) {
  std::unique_ptr<Daemon> daemon(new Daemon(options));
  ISTHMUS_TRY_VOID(daemon->start());
  return daemon;
}

Result<void> Daemon::start() {
  started_ns_ = os::now_ns();
  default_label_ = options_.label.empty() ? os::host_name() : options_.label;
  os::raise_descriptor_limit();
  signals_ = ISTHMUS_TRY(os::take_signals({SIGTERM, SIGINT, SIGHUP}));
  loop_ = ISTHMUS_TRY(control::EventLoop::create());
  ISTHMUS_TRY_VOID(loop_->watch(signals_.get(), [this] { on_signal(); }));

  ISTHMUS_TRY_VOID(load_policy());
  gate_ = std::make_unique<control::CmAdmissionGate>(
      *host_policy_, [this](const control::AdmissionQuestion& question) {
        const control::Function* function = functions_->owner_of_qp(question.qpn);
        Site* site = function ? site_of(function->place) : nullptr;
        return site ? site->cm().find_grant(question) : std::nullopt;
      });
  functions_ =
      std::make_unique<control::FunctionService>(*loop_, *gate_, default_label_);
  captures_ = std::make_unique<Captures>(*loop_, *functions_);
  functions_->add_observer(*captures_);
  functions_->add_observer(*this);
  keeper_ = std::make_unique<control::KeeperLink>(
      *loop_, [socket = options_.socket] { return os::start_companion({"--keeper", socket}); });
  functions_->add_observer(*keeper_);
  auto kept = keeper_->take_over(control::keeper_socket_path(options_.socket));
  if (!kept) {
    ISTHMUS_LOG(kError, "nothing is taken over from an earlier daemon: %s",
                kept.error().message.c_str());
  }
  ISTHMUS_TRY_VOID(
      open_sites(kept ? std::move(*kept) : std::vector<control::KeptPlace>{}));
  return listen();
}

Result<void> Daemon::load_policy() {
  cluster::PolicyDocument document = cluster::PolicyDocument::allow_all();
  policy_name_ = "(none: everything is allowed)";
  if (!options_.policy_file.empty()) {
    policy_text_ = ISTHMUS_TRY(os::read_text_file(options_.policy_file));
    document = ISTHMUS_TRY(cluster::parse_policy(policy_text_, options_.policy_file));
    policy_name_ = options_.policy_file;
  }
  host_policy_ = std::make_unique<control::HostPolicy>(std::move(document));
  if (!options_.cluster_key_file.empty()) {
    cluster_key_ =
        control::cluster_key_of(ISTHMUS_TRY(os::read_text_file(options_.cluster_key_file)));
  }
  return {};
}

Result<void> Daemon::open_sites(std::vector<control::KeptPlace> kept) {
  const os::Fd own = ISTHMUS_TRY(os::open_network_namespace(0));
  const std::uint64_t own_id = ISTHMUS_TRY(os::network_namespace_id(own));
  const auto mine = std::ranges::find(kept, own_id, &control::KeptPlace::namespace_id);
  ISTHMUS_TRY(open_site({}, mine != kept.end() ? std::move(*mine) : control::KeptPlace{}));
  for (control::KeptPlace& place : kept) {
    if (!place.network_namespace) continue;
    os::Fd network_namespace = std::move(place.network_namespace);
    const auto opened = open_site(std::move(network_namespace), std::move(place));
    if (!opened) ISTHMUS_LOG(kError, "%s", opened.error().message.c_str());
  }
  keeper_->start();
  for (const auto& site : sites_) keeper_->keep(site->place());
  return {};
}

Result<Site*> Daemon::open_site(os::Fd network_namespace, control::KeptPlace kept) {
  control::PlaceOptions options;
  // Addresses that were told are those of our own namespace.
  if (!network_namespace) options.only = options_.addresses;
  auto place = ISTHMUS_TRY(control::Place::open(options, std::move(network_namespace),
                                                std::move(kept.groups)));
  sites_.push_back(ISTHMUS_TRY(Site::open(std::move(place), wiring())));
  Site* site = sites_.back().get();
  for (control::KeptFunction& function : kept.functions) {
    // Without a socket for it the daemon was started with other addresses than the one before.
    const bool has_sockets = std::ranges::all_of(
        site->place().groups(),
        [&](const auto& group) { return function.index < group->size(); });
    if (has_sockets) {
      functions_->expect(std::move(function), site->place());
    } else {
      keeper_->on_given_up(function.index);
    }
  }
  return site;
}

Site::Wiring Daemon::wiring() {
  control::CmHooks hooks;
  hooks.owner_of_qp =
      [this](std::uint32_t qpn) -> std::optional<control::CmHooks::QpOwner> {
    const control::Function* function = functions_ ? functions_->owner_of_qp(qpn) : nullptr;
    if (!function) return std::nullopt;
    return control::CmHooks::QpOwner{function->label, function->owner.user_id};
  };
  const auto log_failure = [](const Result<void>& done) {
    if (!done) ISTHMUS_LOG(kInfo, "%s", done.error().message.c_str());
  };
  hooks.revoke = [this, log_failure](std::uint32_t qpn) {
    if (functions_) log_failure(functions_->revoke(qpn));
  };
  hooks.restrict_access = [this, log_failure](std::uint32_t qpn, std::uint32_t access) {
    if (functions_) log_failure(functions_->restrict_access(qpn, access));
  };
  control::CmServiceOptions cm;
  cm.default_label = default_label_;
  cm.cluster_key = cluster_key_;
  return {.loop = *loop_,
          .policy = *host_policy_,
          .hooks = std::move(hooks),
          .cm = std::move(cm),
          .gids_changed = [this](const control::Place& place) { functions_->announce_gids(place); },
          .seen = [this](const control::CmDatagram& datagram,
                         bool incoming) { captures_->note(datagram, incoming); }};
}

Result<void> Daemon::listen() {
  os::remove_file(options_.socket);  // Left behind: whoever holds the lock of the path is us.
  os::Fd listener = ISTHMUS_TRY(
      os::listen_unix(options_.socket, options_.for_everybody ? os::UnixAccess::kEverybody
                                                              : os::UnixAccess::kOwner));
  control::AttachServer::Handlers handlers{
      .function = [this](os::Fd connection, control::Greeting greeting) {
        on_function(std::move(connection), std::move(greeting));
      },
      .cm = [this](os::Fd connection, control::Greeting greeting) {
        on_cm(std::move(connection), std::move(greeting));
      },
      .holders_changed = [this] { check_whether_needed(); }};
  server_ = std::make_unique<control::AttachServer>(*loop_, std::move(listener),
                                                    std::move(handlers));
  ISTHMUS_TRY_VOID(server_->start());

  const std::string control_path = control::control_socket_path(options_.socket);
  os::remove_file(control_path);
  control_server_ = ISTHMUS_TRY(control::ControlServer::create(
      control_path, [this](std::function<void()> task) { return loop_->post(std::move(task)); },
      *this));
  if (options_.is_private) {
    loop_->call_at(os::now_ns() + kFirstClientPatienceNs, [this] {
      had_client_ = true;
      check_whether_needed();
    });
  }
  return {};
}

Daemon::~Daemon() {
  // gRPC's calls wait for the loop; they are told that it has ended.
  if (loop_) loop_->stop();
  control_server_.reset();
  server_.reset();
  if (functions_ && functions_->count() > 0 && !ends_for_good_) {
    ISTHMUS_LOG(kInfo, "programs go on; isthmusd at %s again takes them over",
                options_.socket.c_str());
    functions_->leave();
  } else {
    if (keeper_) keeper_->finish();
    if (functions_) functions_->announce_closing();
  }
  functions_.reset();
}

void Daemon::run() {
  ISTHMUS_LOG(kInfo, "isthmusd serves %s", options_.socket.c_str());
  loop_->run();
  os::remove_file(options_.socket);
  os::remove_file(control::control_socket_path(options_.socket));
}

void Daemon::on_function(os::Fd connection, control::Greeting greeting) {
  const auto site = site_of(greeting.credentials);
  if (!site) return refuse(connection, greeting, site.error());
  functions_->serve(std::move(connection), std::move(greeting), (*site)->place());
}

void Daemon::on_cm(os::Fd connection, control::Greeting greeting) {
  const auto site = site_of(greeting.credentials);
  if (!site) return refuse(connection, greeting, site.error());
  (*site)->cm().serve(std::move(connection), greeting);
}

void Daemon::check_whether_needed() {
  if (!functions_) return;  // We are ending.
  const auto needed = [this] {
    return functions_->count() > 0 || (server_ && server_->holder_count() > 0);
  };
  had_client_ = had_client_ || needed();
  if (!options_.is_private || !had_client_) return;
  // After this turn: a function that is just going is still counted.
  loop_->post([this, needed] {
    if (needed()) return;
    ISTHMUS_LOG(kInfo, "the last client has gone");
    loop_->stop();
  });
}

void Daemon::end_for_good() {
  bool connected = false;
  for (const auto& site : sites_) connected = site->cm().disconnect_all() || connected;
  // Again: somebody is in a hurry.
  if (!connected || ends_for_good_) loop_->stop();
  ends_for_good_ = true;
  loop_->call_at(os::now_ns() + kFarewellPatienceNs, [this] { loop_->stop(); });
}

void Daemon::on_signal() {
  switch (os::next_signal(signals_)) {
    case SIGTERM: return loop_->stop();
    case SIGINT: return end_for_good();
    case SIGHUP: return reload_policy();
    default: return;
  }
}

}  // namespace isthmus::apps
