#include "os/companion_process.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "os/child_process.h"
#include "os/unix_socket.h"

namespace isthmus::os {
namespace {

// Between fork and exec of a process that may have threads: only calls that are safe there.
[[noreturn]] void become_companion(const char* path, char* const* argv, int connection) {
  setsid();
  if (fork() != 0) _exit(0);  // The grandchild is init's: nobody has to wait for it.
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  // dup2 clears close-on-exec, unless both are the same number.
  if (connection == kCompanionFd) {
    fcntl(connection, F_SETFD, 0);
  } else {
    dup2(connection, kCompanionFd);
  }
  syscall(SYS_close_range, static_cast<unsigned>(kCompanionFd + 1), ~0u, 0);
  execv(path, argv);
  _exit(127);
}

}  // namespace

Result<Fd> start_companion(const std::vector<std::string>& arguments) {
  auto [ours, theirs] = ISTHMUS_TRY(unix_socket_pair());
  const std::string path = own_program_path();
  std::vector<std::string> words{path};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);

  const pid_t child = fork();
  if (child < 0) return fail_errno(errno, "start " + path);
  if (child == 0) become_companion(path.c_str(), argv.data(), theirs.get());
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return std::move(ours);
}

}  // namespace isthmus::os
