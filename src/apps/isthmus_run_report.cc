#include "apps/isthmus_run_report.h"

#include <memory>
#include <thread>

#include "apps/isthmus_far_report.h"
#include "farmem/view.h"
#include "os/clock.h"
#include "os/event_fd.h"
#include "os/poll.h"
#include "os/text_file.h"

namespace isthmus::apps {
namespace {

constexpr std::uint64_t kIntervalNs = 100 * os::kNsPerMs;
// 20 minutes at ten a second; then every second sample goes, and the interval doubles.
constexpr std::size_t kMostSamples = 12'000;

class Watcher {
 public:
  explicit Watcher(FarReport& report) : report_(report), start_ns_(os::now_ns()) {}

  // Until `ended` is readable, and once more then.
  void watch(int ended) {
    const int fds[] = {ended};
    for (std::uint64_t interval_ns = kIntervalNs;;) {
      const bool last = os::wait_readable(fds, interval_ns) != 0;
      // Anew each time: after exec() the far memory is another one. One that was left has no more
      // numbers but the last, which the program wrote at its end.
      if (auto view = farmem::View::open(report_.process_id)) {
        view_ = std::move(*view);
        sample();
      } else if (last && view_ != nullptr) {
        sample();
      }
      if (last) return;
      if (report_.samples.size() < kMostSamples) continue;
      for (std::size_t index = 0; index < kMostSamples / 2; ++index) {
        report_.samples[index] = report_.samples[2 * index + 1];
      }
      report_.samples.resize(kMostSamples / 2);
      interval_ns *= 2;
    }
  }

 private:
  void sample() {
    const auto stats = view_->stats();
    if (!stats) return;
    report_.samples.push_back(
        {static_cast<double>(os::now_ns() - start_ns_) / static_cast<double>(os::kNsPerSecond),
         *stats});
    if (auto states = view_->states()) report_.last_pages = std::move(*states);
  }

  FarReport& report_;
  std::uint64_t start_ns_;
  std::unique_ptr<farmem::View> view_;
};

}  // namespace

CommandResult run_with_report(const std::vector<std::string>& command,
                              const os::EnvironmentChanges& environment,
                              const std::string& report_file) {
  // Before the program has run for an hour, not after.
  ISTHMUS_TRY_VOID(os::write_text_file(report_file, "", os::TextFileAccess::kEverybody));
  FarReport report{.command = command};
  const os::Fd ended = ISTHMUS_TRY(os::create_event_fd());
  std::thread watcher;
  const auto status =
      os::run_in_foreground(command, environment, [&](std::int32_t process_id) {
        report.process_id = process_id;
        watcher = std::thread([&report, &ended] { Watcher(report).watch(ended.get()); });
      });
  if (watcher.joinable()) {
    os::signal(ended.get());
    watcher.join();
  }
  report.exit_status = ISTHMUS_TRY(status);
  ISTHMUS_TRY_VOID(
      os::write_text_file(report_file, report_html(report), os::TextFileAccess::kEverybody));
  return report.exit_status;
}

}  // namespace isthmus::apps
