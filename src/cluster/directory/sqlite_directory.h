// The directory in one SQLite file: for one host, any number of its processes at once.
//
// Leases end by the wall clock of the host, looked at in every access: who comes first after the
// end erases the keys. A clock set back lengthens no lease beyond its time to live.
// A watch hears of changes through the same object at once, of those of others by looking every
// `poll_interval_ms`. The file keeps the last changes for watches, within `kept_changes` and
// `kept_bytes`.
//
// Each call may take `patience_ms` while another process has the file, Watch::next so much longer.
// A process killed at any moment leaves the state before or after its change. Put the file into a
// folder of its owner alone: it is made readable as the umask says.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "cluster/directory/directory.h"

namespace isthmus::cluster {

struct SqliteDirectoryOptions {
  std::string path;
  std::uint64_t patience_ms = 2000;  // For other processes that have the file for themselves.
  std::uint64_t poll_interval_ms = 50;
  std::uint64_t kept_changes = 10'000;
  std::uint64_t kept_bytes = 64u << 20;
  // Nanoseconds since 1970; the host's clock if empty.
  std::function<std::uint64_t()> wall_clock_ns;
};

// kUnreachable: another process had the file for too long, or its folder is not there.
Result<std::unique_ptr<Directory>> open_sqlite_directory(SqliteDirectoryOptions options);

}  // namespace isthmus::cluster
