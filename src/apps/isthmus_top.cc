// isthmus top: the status, drawn anew every interval, the busiest first.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <sstream>
#include <thread>

#include "apps/isthmus_session.h"
#include "apps/isthmus_status_text.h"
#include "os/terminal.h"

namespace isthmus::apps {
namespace {

constexpr const char* kEnterScreen = "\x1b[?1049h\x1b[?25l";  // The other screen, no cursor.
constexpr const char* kLeaveScreen = "\x1b[?25h\x1b[?1049l";
constexpr const char* kHome = "\x1b[H";
constexpr const char* kClearLine = "\x1b[K";
constexpr const char* kClearBelow = "\x1b[J";

double traffic_of(const InstanceSummary& instance) {
  return instance.rate.bytes_sent + instance.rate.bytes_received;
}

std::string picture(control::StatusReport now, const control::StatusReport* before) {
  auto instances = summarize(now, before);
  std::ranges::stable_sort(instances, std::greater{}, traffic_of);
  for (auto& function : now.functions) {
    std::ranges::stable_sort(function.queue_pairs, std::greater{}, [](const auto& qp) {
      return qp.traffic.bytes_sent + qp.traffic.bytes_received;
    });
  }
  return host_text(now) + "\n" + instances_text(instances) + "\n" + queue_pairs_text(now, before) +
         "\n" + counters_text(now);
}

// Cut to the terminal, each line cleared to its end, so that nothing flickers.
std::string drawn(const std::string& text) {
  const os::TerminalSize size = os::terminal_size();
  std::istringstream lines{text};
  std::string out = kHome;
  unsigned row = 0;
  for (std::string line; row + 1 < size.rows && std::getline(lines, line); ++row) {
    out += line.substr(0, size.columns) + kClearLine + "\r\n";
  }
  return out + kClearBelow + "q ends";
}

}  // namespace

CommandResult show_top(const GlobalOptions& global, const TopOptions& options) {
  // First: the threads of gRPC must inherit the blocked signals, or one of them dies of ctrl-C.
  const bool live = !options.once && os::output_is_terminal();
  const auto watch = ISTHMUS_TRY(
      os::QuitWatch::create(live ? os::QuitWatch::Keys::kWatch : os::QuitWatch::Keys::kIgnore));
  const auto client = ISTHMUS_TRY(connect_to_daemon(global));
  // The stream blocks in gRPC; keys and signals are waited for here beside it.
  std::thread quitter{[&] {
    while (watch->wait(UINT64_MAX) != os::QuitVerdict::kQuit) {
    }
    client->cancel();
  }};
  if (live) fmt::print("{}", kEnterScreen);
  control::StatusReport before;
  int seen = 0;
  const auto ended = client->watch_status(
      {.queue_pairs = true}, static_cast<std::uint32_t>(options.interval_seconds * 1000),
      [&](control::StatusReport now) {
        const std::string text = picture(now, seen == 0 ? nullptr : &before);
        before = std::move(now);
        ++seen;
        if (options.once && seen < 2) return control::Continue::kYes;  // The first has no rates.
        fmt::print("{}", live ? drawn(text) : text);
        std::fflush(stdout);
        return options.once ? control::Continue::kNo : control::Continue::kYes;
      });
  if (live) fmt::print("{}", kLeaveScreen);
  std::fflush(stdout);
  watch->interrupt();
  quitter.join();
  ISTHMUS_TRY_VOID(ended);
  return kExitDone;
}

}  // namespace isthmus::apps
