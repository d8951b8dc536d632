// isthmus version: of this program, and of the daemon when one answers.
#include <fmt/format.h>

#include "apps/isthmus_json.h"
#include "apps/isthmus_session.h"

namespace isthmus::apps {

CommandResult show_version(const GlobalOptions& global, const VersionOptions& options) {
  Result<control::VersionReport> daemon = fail(ErrorCode::kRefused, "no daemon");
  if (const auto client = connect_to_daemon(global)) daemon = (*client)->version();
  if (options.json) {
    fmt::print("{}\n", version_json(ISTHMUS_VERSION, daemon ? &*daemon : nullptr));
    return kExitDone;
  }
  fmt::print("isthmus {}\n", ISTHMUS_VERSION);
  if (daemon) {
    fmt::print("isthmusd {} at {}, pid {}\n", daemon->version, attach_socket(global),
               daemon->process_id);
  } else {
    fmt::print("no isthmusd at {}\n", attach_socket(global));
  }
  return kExitDone;
}

}  // namespace isthmus::apps
