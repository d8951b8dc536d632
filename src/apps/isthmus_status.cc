// isthmus status: one picture. Rates need two reports, so it waits a moment between them.
#include <fmt/format.h>

#include "apps/isthmus_json.h"
#include "apps/isthmus_session.h"
#include "apps/isthmus_status_text.h"

namespace isthmus::apps {

CommandResult show_status(const GlobalOptions& global, const StatusOptions& options) {
  const control::StatusDetail detail{.queue_pairs = options.queue_pairs || options.json,
                                     .memory_regions = options.memory_regions || options.json};
  constexpr std::uint32_t kSampleMs = 200;
  const auto client = ISTHMUS_TRY(connect_to_daemon(global));
  control::StatusReport before;
  control::StatusReport now;
  int seen = 0;
  ISTHMUS_TRY_VOID(client->watch_status(detail, kSampleMs, [&](control::StatusReport report) {
    before = std::exchange(now, std::move(report));
    // Nobody attached: nothing has a rate.
    return ++seen == 2 || now.functions.empty() ? control::Continue::kNo : control::Continue::kYes;
  }));
  if (seen == 0) return fail(ErrorCode::kClosed, "isthmusd ended before it answered");

  const control::StatusReport* earlier = seen == 2 ? &before : nullptr;
  if (options.json) {
    fmt::print("{}\n", status_json(now, earlier));
    return kExitDone;
  }
  fmt::print("{}\n{}", host_text(now), instances_text(summarize(now, earlier)));
  if (options.queue_pairs) fmt::print("\n{}", queue_pairs_text(now, earlier));
  if (options.memory_regions) fmt::print("\n{}", memory_regions_text(now));
  if (const std::string counters = counters_text(now); !counters.empty()) {
    fmt::print("\n{}", counters);
  }
  return kExitDone;
}

}  // namespace isthmus::apps
