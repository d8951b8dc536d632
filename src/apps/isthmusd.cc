// isthmusd: the physical function. Parses its command line, makes sure that it is the only one at
// its socket, constructs the daemon and runs it.
#include <cstdio>
#include <string>

#include "apps/isthmusd_daemon.h"
#include "apps/isthmusd_options.h"
#include "attach/attach_options.h"
#include "base/log.h"
#include "control/event_loop.h"
#include "control/keeper.h"
#include "os/background.h"
#include "os/clock.h"
#include "os/companion_process.h"
#include "os/lock_file.h"
#include "os/poll.h"
#include "os/process.h"
#include "os/signal_fd.h"
#include "os/text_file.h"

namespace isthmus::apps {
namespace {

constexpr std::uint64_t kStartPatienceNs = 5 * os::kNsPerSecond;
constexpr std::uint64_t kLockPauseNs = 20 * os::kNsPerMs;

std::string beside(const std::string& socket, const char* suffix) {
  constexpr std::string_view kEnd = ".sock";
  const bool cut = socket.ends_with(kEnd);
  return (cut ? socket.substr(0, socket.size() - kEnd.size()) : socket) + suffix;
}

Result<void> make_folder(const DaemonOptions& options) {
  const std::string folder = options.socket.substr(0, options.socket.rfind('/'));
  if (folder.empty() || folder == options.socket) return {};
  // A folder that the user names is the user's business; the usual place may be in /tmp.
  if (options.socket_given && os::path_exists(folder)) return {};
  return os::make_private_folder(folder);
}

Result<os::Fd> lock_path(const DaemonOptions& options) {
  const std::string path = beside(options.socket, ".lock");
  auto lock = os::lock_file(path, os::LockWait::kNo);
  // Whoever has it and does not answer is about to end, or just starts.
  const std::uint64_t give_up = os::now_ns() + kStartPatienceNs;
  while (!lock && lock.error().code == ErrorCode::kBusy && os::now_ns() < give_up &&
         !attach::connect_to_daemon(options.socket)) {
    os::wait_readable({}, kLockPauseNs);
    lock = os::lock_file(path, os::LockWait::kNo);
  }
  if (!lock && lock.error().code == ErrorCode::kBusy) {
    return fail(ErrorCode::kBusy,
                "another isthmusd, process %d, serves %s already; use that one, end it, or name "
                "another socket with --socket",
                os::read_lock_owner(path), options.socket.c_str());
  }
  return lock;
}

// What start_companion() started.
int keep_for_daemon(const std::string& socket) {
  const auto signals = os::take_signals({});  // Only that SIGPIPE is no end.
  auto loop = control::EventLoop::create();
  if (!loop || !signals) return 1;
  control::Keeper keeper(**loop, os::Fd{os::kCompanionFd}, control::keeper_socket_path(socket));
  if (const auto started = keeper.start(); !started) {
    ISTHMUS_LOG(kError, "keeper: %s", started.error().message.c_str());
    return 1;
  }
  (*loop)->run();
  return 0;
}

int fail_start(os::Fd& report, const Error& error) {
  const std::string line = "isthmusd: " + error.message + "\n";
  std::fputs(line.c_str(), stderr);
  os::report_failed(report, line);
  return 1;
}

int serve(const DaemonOptions& options) {
  os::Fd report;
  if (const auto made = make_folder(options); !made) return fail_start(report, made.error());
  if (options.detach) {
    auto detached = os::go_into_background(beside(options.socket, ".log"));
    if (!detached) return fail_start(report, detached.error());
    report = std::move(*detached);
  }
  const auto lock = lock_path(options);
  if (!lock) return fail_start(report, lock.error());
  os::write_lock_owner(*lock, os::process_id());

  const auto daemon = Daemon::create(options);
  if (!daemon) return fail_start(report, daemon.error());
  os::report_started(report);
  (*daemon)->run();
  return 0;
}

}  // namespace
}  // namespace isthmus::apps

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "--keeper") {
    return isthmus::apps::keep_for_daemon(argv[2]);
  }
  const auto parsed = isthmus::apps::parse_daemon_line(argc, argv);
  if (!parsed.run) {
    std::fputs(parsed.output.c_str(), parsed.exit_status == 0 ? stdout : stderr);
    return parsed.exit_status;
  }
  isthmus::set_log_level(isthmus::LogLevel::kInfo);
  return isthmus::apps::serve(parsed.options);
}
