#include "os/background.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>

namespace isthmus::os {
namespace {

constexpr char kStarted = '+';  // The first byte of the report; anything else begins a message.

void write_all(int fd, const char* bytes, std::size_t count) {
  while (count > 0) {
    const ssize_t written = ::write(fd, bytes, count);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    bytes += written;
    count -= static_cast<std::size_t>(written);
  }
}

[[noreturn]] void wait_for_report(const Fd& report) {
  std::array<char, 1024> bytes;
  bool first = true;
  while (true) {
    const ssize_t count = ::read(report.get(), bytes.data(), bytes.size());
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) _exit(1);  // Ended without a word that it had started.
    if (first && bytes[0] == kStarted) _exit(0);
    first = false;
    write_all(STDERR_FILENO, bytes.data(), static_cast<std::size_t>(count));
  }
}

}  // namespace

Result<Fd> go_into_background(const std::string& log_path) {
  constexpr int kFlags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW;
  const Fd log{open(log_path.c_str(), kFlags, 0600)};
  if (!log) return fail_errno(errno, "open the log file " + log_path);
  const Fd nothing{open("/dev/null", O_RDONLY | O_CLOEXEC)};
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return fail_errno(errno, "make a pipe");
  Fd reading{ends[0]};
  Fd writing{ends[1]};
  const pid_t child = fork();
  if (child < 0) return fail_errno(errno, "go into the background");
  if (child > 0) {
    writing.reset();
    wait_for_report(reading);
  }
  setsid();
  dup2(nothing.get(), STDIN_FILENO);
  dup2(log.get(), STDOUT_FILENO);
  dup2(log.get(), STDERR_FILENO);
  return writing;
}

void report_started(Fd& report) {
  if (!report) return;
  write_all(report.get(), &kStarted, 1);
  report.reset();
}

void report_failed(Fd& report, const std::string& message) {
  if (!report) return;
  write_all(report.get(), message.data(), message.size());
  report.reset();
}

}  // namespace isthmus::os
