#include "os/child_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "base/assert.h"
#include "os/fd.h"

extern char** environ;

namespace isthmus::os {
namespace {

std::vector<char*> pointers_of(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (auto& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

std::vector<std::string> environment_with(const EnvironmentChanges& changes) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const std::string name = text.substr(0, text.find('='));
    bool changed = false;
    for (const auto& change : changes) changed = changed || change.first == name;
    if (!changed) result.push_back(text);
  }
  for (const auto& [name, value] : changes) result.push_back(name + "=" + value);
  return result;
}

// In a container, setting up can take minutes; nothing here bounds the time of a program.
Result<int> wait_for_end(pid_t pid) {
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return fail_errno(errno, "waiting for a program to end");
  }
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

Result<pid_t> spawn(const std::vector<std::string>& argv, const EnvironmentChanges& changes,
                    posix_spawn_file_actions_t* actions, posix_spawnattr_t* attributes) {
  ISTHMUS_ASSERT(!argv.empty());
  std::vector<std::string> words = argv;
  std::vector<std::string> environment = environment_with(changes);
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, words[0].c_str(), actions, attributes,
                                 pointers_of(words).data(), pointers_of(environment).data());
  if (error != 0) return fail_errno(error, "starting " + words[0]);
  return pid;
}

// Signals that end a program or that it may have its own use for, as long as this object lives.
class PassedSignals {
 public:
  PassedSignals() {
    sigset_t passed;
    sigemptyset(&passed);
    for (const int number : {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2}) {
      sigaddset(&passed, number);
    }
    pthread_sigmask(SIG_BLOCK, &passed, &before_);
    arrived_ = Fd{signalfd(-1, &passed, SFD_CLOEXEC | SFD_NONBLOCK)};
  }
  ~PassedSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  PassedSignals(const PassedSignals&) = delete;
  PassedSignals& operator=(const PassedSignals&) = delete;

  const sigset_t& before() const { return before_; }

  // The child is waited for by nobody else, so the number stays its own.
  void pass_on_until_end(pid_t child) const {
    const Fd process{static_cast<int>(syscall(SYS_pidfd_open, child, 0))};
    if (!process || !arrived_) return;
    std::array<pollfd, 2> watched{pollfd{process.get(), POLLIN, 0}, {arrived_.get(), POLLIN, 0}};
    while (poll(watched.data(), watched.size(), -1) >= 0 || errno == EINTR) {
      if (watched[0].revents != 0) return;
      signalfd_siginfo info{};
      if (read(arrived_.get(), &info, sizeof info) != sizeof info) continue;
      // Those of the terminal have the code SI_KERNEL.
      if (info.ssi_code <= 0) kill(child, static_cast<int>(info.ssi_signo));
    }
  }

 private:
  sigset_t before_{};
  Fd arrived_;
};

}  // namespace

Result<FinishedProcess> run_to_end(const std::vector<std::string>& argv) {
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "making a pipe");
  Fd reading{ends[0]};
  Fd writing{ends[1]};
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, writing.get(), 1);
  posix_spawn_file_actions_adddup2(&actions, writing.get(), 2);
  auto started = spawn(argv, {}, &actions, nullptr);
  posix_spawn_file_actions_destroy(&actions);
  const pid_t pid = ISTHMUS_TRY(std::move(started));
  writing.reset();

  FinishedProcess finished;
  std::array<char, 4096> buffer;
  for (;;) {
    const ssize_t bytes = read(reading.get(), buffer.data(), buffer.size());
    if (bytes < 0 && errno == EINTR) continue;
    if (bytes <= 0) break;
    finished.output.append(buffer.data(), static_cast<std::size_t>(bytes));
  }
  finished.status = ISTHMUS_TRY(wait_for_end(pid));
  return finished;
}

Result<int> run_with_log(const std::vector<std::string>& argv, const std::string& log_path) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, log_path.c_str(), O_WRONLY | O_CREAT | O_APPEND,
                                   0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  auto started = spawn(argv, {}, &actions, nullptr);
  posix_spawn_file_actions_destroy(&actions);
  return wait_for_end(ISTHMUS_TRY(std::move(started)));
}

Result<int> run_in_foreground(const std::vector<std::string>& argv,
                              const EnvironmentChanges& changes,
                              const std::function<void(std::int32_t)>& on_start) {
  const PassedSignals signals;
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setsigmask(&attributes, &signals.before());
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  auto started = spawn(argv, changes, nullptr, &attributes);
  posix_spawnattr_destroy(&attributes);
  const pid_t pid = ISTHMUS_TRY(std::move(started));
  if (on_start) on_start(pid);
  signals.pass_on_until_end(pid);
  return wait_for_end(pid);
}

Error replace_process(const std::vector<std::string>& argv, const EnvironmentChanges& changes) {
  ISTHMUS_ASSERT(!argv.empty());
  std::vector<std::string> words = argv;
  std::vector<std::string> environment = environment_with(changes);
  execvpe(words[0].c_str(), pointers_of(words).data(), pointers_of(environment).data());
  return fail_errno(errno, "starting " + words[0]).error();
}

Result<void> stop_process(std::int32_t process_id, Stop how, int timeout_ms) {
  if (process_id <= 1) return fail(ErrorCode::kInvalid, "process %d is not ours", process_id);
  // A descriptor, so that the number's next owner is neither signalled nor waited for.
  const Fd process{static_cast<int>(syscall(SYS_pidfd_open, process_id, 0))};
  if (!process) {
    if (errno == ESRCH) return {};
    return fail_errno(errno, "reaching process " + std::to_string(process_id));
  }
  const int number = how == Stop::kInterrupt ? SIGINT : how == Stop::kAsk ? SIGTERM : SIGKILL;
  if (syscall(SYS_pidfd_send_signal, process.get(), number, nullptr, 0) != 0) {
    if (errno == ESRCH) return {};
    return fail_errno(errno, "stopping process " + std::to_string(process_id));
  }
  pollfd ended{.fd = process.get(), .events = POLLIN, .revents = 0};
  if (poll(&ended, 1, timeout_ms) == 1) return {};
  return fail(ErrorCode::kTimedOut, "process %d did not end in %d ms", process_id, timeout_ms);
}

std::string own_program_path() {
  std::array<char, 4096> path{};
  const ssize_t bytes = readlink("/proc/self/exe", path.data(), path.size() - 1);
  return bytes > 0 ? std::string(path.data(), static_cast<std::size_t>(bytes)) : "isthmus";
}

}  // namespace isthmus::os
