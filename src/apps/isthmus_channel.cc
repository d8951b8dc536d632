// isthmus channel: live queue pairs change between the memory and the RoCE channel.
#include <fmt/format.h>

#include "apps/isthmus_session.h"

namespace isthmus::apps {

CommandResult switch_channel(const GlobalOptions& global, const ChannelOptions& options) {
  const auto client = ISTHMUS_TRY(connect_to_daemon(global));
  const std::uint32_t asked = ISTHMUS_TRY(
      client->change_channel({.qpn = options.qpn, .all = options.all, .kind = options.kind}));
  fmt::print("asked {} queue pair{} to use the {} channel\n", asked, asked == 1 ? "" : "s",
             options.kind);
  return kExitDone;
}

}  // namespace isthmus::apps
