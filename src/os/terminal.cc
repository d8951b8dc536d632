#include "os/terminal.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "os/clock.h"

namespace isthmus::os {

struct QuitWatch::Saved {
  sigset_t mask{};
  termios modes{};
  bool has_modes = false;
};

bool output_is_terminal() { return isatty(STDOUT_FILENO) == 1; }

TerminalSize terminal_size() {
  winsize size{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0 || size.ws_col == 0) {
    return {};
  }
  return {.rows = size.ws_row, .columns = size.ws_col};
}

Result<std::unique_ptr<QuitWatch>> QuitWatch::create(Keys keys) {
  auto saved = std::make_unique<Saved>();
  sigset_t watched;
  sigemptyset(&watched);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGWINCH}) sigaddset(&watched, number);
  pthread_sigmask(SIG_BLOCK, &watched, &saved->mask);
  Fd signals{signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK)};
  Fd interrupted{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (!signals || !interrupted) {
    const int error = errno;
    pthread_sigmask(SIG_SETMASK, &saved->mask, nullptr);
    return fail_errno(error, "watching for signals");
  }
  const bool watch_keys = keys == Keys::kWatch && isatty(STDIN_FILENO) == 1;
  if (watch_keys && tcgetattr(STDIN_FILENO, &saved->modes) == 0) {
    saved->has_modes = true;
    termios single = saved->modes;
    single.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    single.c_cc[VMIN] = 0;
    single.c_cc[VTIME] = 0;
    tcsetattr(STDIN_FILENO, TCSANOW, &single);
  }
  return std::unique_ptr<QuitWatch>(
      new QuitWatch(std::move(signals), std::move(interrupted), std::move(saved), watch_keys));
}

QuitWatch::QuitWatch(Fd signals, Fd interrupted, std::unique_ptr<Saved> saved, bool keys)
    : signals_(std::move(signals)),
      interrupted_(std::move(interrupted)),
      saved_(std::move(saved)),
      keys_(keys) {}

QuitWatch::~QuitWatch() {
  if (saved_->has_modes) tcsetattr(STDIN_FILENO, TCSANOW, &saved_->modes);
  pthread_sigmask(SIG_SETMASK, &saved_->mask, nullptr);
}

QuitVerdict QuitWatch::wait(std::uint64_t timeout_ns) {
  const std::uint64_t start = now_ns();
  for (;;) {
    std::array<pollfd, 3> events{
        {{.fd = signals_.get(), .events = POLLIN, .revents = 0},
         {.fd = interrupted_.get(), .events = POLLIN, .revents = 0},
         {.fd = keys_ ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0}}};
    const std::uint64_t passed = now_ns() - start;
    const std::uint64_t left = timeout_ns > passed ? timeout_ns - passed : 0;
    const timespec limit{.tv_sec = static_cast<time_t>(left / kNsPerSecond),
                         .tv_nsec = static_cast<long>(left % kNsPerSecond)};
    const int ready =
        ppoll(events.data(), events.size(), timeout_ns == UINT64_MAX ? nullptr : &limit, nullptr);
    if (ready == 0) return QuitVerdict::kTimeout;
    if (ready < 0 && errno != EINTR) return QuitVerdict::kQuit;
    if (ready < 0) continue;
    if (events[1].revents != 0) return QuitVerdict::kQuit;
    if (events[0].revents != 0) {
      signalfd_siginfo info{};
      if (read(signals_.get(), &info, sizeof(info)) == sizeof(info)) {
        return info.ssi_signo == SIGWINCH ? QuitVerdict::kRedraw : QuitVerdict::kQuit;
      }
    }
    if (events[2].revents != 0) {
      constexpr char kEscape = 27;
      char key = 0;
      const ssize_t bytes = read(STDIN_FILENO, &key, 1);
      if (bytes == 1 && (key == 'q' || key == 'Q' || key == kEscape)) return QuitVerdict::kQuit;
      if (bytes <= 0) keys_ = false;  // The terminal hung up; the signal says so as well.
    }
  }
}

void QuitWatch::interrupt() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(interrupted_.get(), &one, sizeof(one));
}

}  // namespace isthmus::os
