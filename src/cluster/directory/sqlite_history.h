// SqliteHistory: the tables of a directory file, as steps within a transaction.
//
//     head    one row: the revision now, up to where history is forgotten, the size of the rest
//     entry   the keys as they are
//     change  the keys as they became, by revision and position in it; value NULL: erased
//     lease   the leases that have not ended
//
// Invariants: revisions in `change` are above head.forgotten and at most head.revision; every
// entry with a lease has its row in `lease`.
//
// Threading: as SqliteFile; every call but prepare() within a transaction of the caller.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "cluster/directory/directory.h"
#include "cluster/directory/sqlite_file.h"

namespace isthmus::cluster {

struct HistoryBounds {
  std::uint64_t changes = 0;
  std::uint64_t bytes = 0;  // Of keys and values.
};

struct Happened {
  std::vector<Event> events;
  Revision up_to;  // Nothing else did, up to here.
};

class SqliteHistory {
 public:
  explicit SqliteHistory(SqliteFile& file) : file_(file) {}

  // Makes the tables in an empty file, in a transaction of its own. kInvalid: the file is of
  // something else.
  Result<void> prepare();

  Result<Revision> revision();
  Result<Entry> get(std::string_view key);
  Result<std::vector<Entry>> list(std::string_view prefix);
  // Whole revisions after `after`, up to a bound. kStale: forgotten.
  Result<Happened> events(std::string_view prefix, Revision after);

  Result<Revision> commit(std::span<const Change> changes);
  Result<void> forget(Revision until);
  Result<void> forget_beyond(HistoryBounds bounds);

  Result<LeaseId> grant(std::uint64_t time_to_live_ns, std::uint64_t now_ns);
  Result<void> keep_alive(LeaseId lease, std::uint64_t now_ns);
  Result<void> end_lease(LeaseId lease);  // Its keys go at one revision.
  // Leases that end_due_leases would change something about.
  Result<bool> has_due_lease(std::uint64_t now_ns);
  Result<void> end_due_leases(std::uint64_t now_ns);

 private:
  Result<void> check_expected(const Change& change);
  Result<bool> apply(const Change& change, Revision at, std::uint64_t position);
  Result<void> record(const Change& change, Revision at, std::uint64_t position);
  Result<void> set_revision(Revision at);

  SqliteFile& file_;
};

}  // namespace isthmus::cluster
