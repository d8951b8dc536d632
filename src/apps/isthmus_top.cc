// isthmus top: the status, drawn anew every interval, the busiest first.
#include <algorithm>
#include <thread>

#include "apps/isthmus_screen.h"
#include "apps/isthmus_session.h"
#include "apps/isthmus_status_text.h"
#include "os/terminal.h"

namespace isthmus::apps {
namespace {

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
  LiveScreen screen(live ? LiveScreen::Kind::kLive : LiveScreen::Kind::kPlain);
  control::StatusReport before;
  int seen = 0;
  const auto ended = client->watch_status(
      {.queue_pairs = true}, static_cast<std::uint32_t>(options.interval_seconds * 1000),
      [&](control::StatusReport now) {
        const std::string text = picture(now, seen == 0 ? nullptr : &before);
        before = std::move(now);
        ++seen;
        if (options.once && seen < 2) return control::Continue::kYes;  // The first has no rates.
        screen.draw(text);
        return options.once ? control::Continue::kNo : control::Continue::kYes;
      });
  screen.leave();
  watch->interrupt();
  quitter.join();
  ISTHMUS_TRY_VOID(ended);
  return kExitDone;
}

}  // namespace isthmus::apps
