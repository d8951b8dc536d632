#include "cluster/directory/sqlite_history.h"

#include <algorithm>
#include <string>

#include "base/assert.h"

namespace isthmus::cluster {
namespace {

constexpr std::uint64_t kApplicationId = 0x49736472;  // "Isdr", so that others' files are refused.
constexpr std::uint64_t kFormat = 1;

// The history begins at 1, the revision of an empty directory, as in etcd.
constexpr const char* kTables = R"(
  CREATE TABLE head(id INTEGER PRIMARY KEY CHECK(id = 1), revision INTEGER NOT NULL,
    forgotten INTEGER NOT NULL, change_count INTEGER NOT NULL, change_bytes INTEGER NOT NULL);
  INSERT INTO head VALUES(1, 1, 1, 0, 0);
  CREATE TABLE entry(key BLOB PRIMARY KEY, value BLOB NOT NULL, changed INTEGER NOT NULL,
    lease INTEGER NOT NULL);
  CREATE INDEX entry_of_lease ON entry(lease) WHERE lease <> 0;
  CREATE TABLE change(revision INTEGER NOT NULL, position INTEGER NOT NULL, key BLOB NOT NULL,
    value BLOB, lease INTEGER NOT NULL, PRIMARY KEY(revision, position));
  CREATE TABLE lease(id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_ns INTEGER NOT NULL,
    ends_ns INTEGER NOT NULL);
  PRAGMA application_id = 0x49736472;
  PRAGMA user_version = 1;
)";

// One answer to a watch: enough to make it worth it, little enough to hold in memory.
constexpr std::size_t kMaxEvents = 1000;
constexpr std::size_t kMaxEventBytes = 8u << 20;

// The number a statement of one row and one column gives.
Result<std::uint64_t> number_of(SqliteFile& file, const char* sql) {
  SqliteQuery query = file.query(sql);
  const bool found = ISTHMUS_TRY(query.next());
  if (!found) return fail(ErrorCode::kInvalid, "directory file: its head is missing");
  return query.number(0);
}

Result<void> check_format(SqliteFile& file) {
  const std::uint64_t format = ISTHMUS_TRY(number_of(file, "PRAGMA user_version"));
  if (format == kFormat) return {};
  return fail(ErrorCode::kInvalid, "directory file: of format %llu; this program knows %llu",
              static_cast<unsigned long long>(format), static_cast<unsigned long long>(kFormat));
}

std::uint64_t bytes_of(const Change& change) { return change.key.size() + change.value.size(); }

}  // namespace

Result<void> SqliteHistory::prepare() {
  std::uint64_t owner = ISTHMUS_TRY(number_of(file_, "PRAGMA application_id"));
  if (owner == kApplicationId) return check_format(file_);
  auto transaction = ISTHMUS_TRY(SqliteTransaction::begin(file_, TransactionKind::kWrite));
  // Perhaps another process has made them since.
  owner = ISTHMUS_TRY(number_of(file_, "PRAGMA application_id"));
  if (owner == kApplicationId) return check_format(file_);
  const std::uint64_t tables = ISTHMUS_TRY(number_of(file_, "SELECT count(*) FROM sqlite_master"));
  if (owner != 0 || tables != 0) {
    return fail(ErrorCode::kInvalid, "the file is a database of another program; name another one");
  }
  ISTHMUS_TRY_VOID(file_.execute(kTables));
  return transaction->commit();
}

Result<Revision> SqliteHistory::revision() {
  return Revision{ISTHMUS_TRY(number_of(file_, "SELECT revision FROM head"))};
}

Result<void> SqliteHistory::set_revision(Revision at) {
  return file_.query("UPDATE head SET revision = ?").bind(at.number).run();
}

Result<Entry> SqliteHistory::get(std::string_view key) {
  SqliteQuery query = file_.query("SELECT value, changed, lease FROM entry WHERE key = ?");
  query.bind(key);
  const bool found = ISTHMUS_TRY(query.next());
  if (!found) return fail(ErrorCode::kNotFound, "no such key in the directory");
  return Entry{.key = std::string(key),
               .value = query.bytes(0),
               .changed = Revision{query.number(1)},
               .lease = LeaseId{query.number(2)}};
}

Result<std::vector<Entry>> SqliteHistory::list(std::string_view prefix) {
  const std::string end = end_of_prefix(prefix);
  SqliteQuery query = file_.query(
      "SELECT key, value, changed, lease FROM entry WHERE key >= ?1 AND (?2 = x'' OR key < ?2) "
      "ORDER BY key");
  query.bind(prefix).bind(end);
  std::vector<Entry> entries;
  while (ISTHMUS_TRY(query.next())) {
    entries.push_back({.key = query.bytes(0),
                       .value = query.bytes(1),
                       .changed = Revision{query.number(2)},
                       .lease = LeaseId{query.number(3)}});
  }
  return entries;
}

Result<Happened> SqliteHistory::events(std::string_view prefix, Revision after) {
  Happened happened{.events = {}, .up_to = ISTHMUS_TRY(revision())};
  const std::uint64_t forgotten = ISTHMUS_TRY(number_of(file_, "SELECT forgotten FROM head"));
  // Nothing happened at revision 1, so a watch from the beginning is after it.
  if (std::max<std::uint64_t>(after.number, 1) < forgotten) {
    return fail(ErrorCode::kStale,
                "compacted: changes after revision %llu are forgotten up to %llu; list again",
                static_cast<unsigned long long>(after.number),
                static_cast<unsigned long long>(forgotten));
  }
  const std::string end = end_of_prefix(prefix);
  SqliteQuery query = file_.query(
      "SELECT revision, key, value, lease FROM change WHERE revision > ?1 AND key >= ?2 AND "
      "(?3 = x'' OR key < ?3) ORDER BY revision, position");
  query.bind(after.number).bind(prefix).bind(end);
  std::size_t bytes = 0;
  while (ISTHMUS_TRY(query.next())) {
    const Revision at{query.number(0)};
    const bool is_enough = happened.events.size() >= kMaxEvents || bytes >= kMaxEventBytes;
    if (is_enough && happened.events.back().entry.changed != at) {
      happened.up_to = happened.events.back().entry.changed;
      break;
    }
    happened.events.push_back(
        {.kind = query.is_null(2) ? EventKind::kErased : EventKind::kPut,
         .entry = {.key = query.bytes(1),
                   .value = query.bytes(2),
                   .changed = at,
                   .lease = LeaseId{query.number(3)}}});
    bytes += happened.events.back().entry.key.size() + happened.events.back().entry.value.size();
  }
  return happened;
}

Result<void> SqliteHistory::check_expected(const Change& change) {
  if (!change.expected.is_condition()) return {};
  SqliteQuery query = file_.query("SELECT changed FROM entry WHERE key = ?");
  query.bind(change.key);
  const bool found = ISTHMUS_TRY(query.next());
  const Revision actual{found ? query.number(0) : 0};
  if (actual == change.expected.changed()) return {};
  return fail(ErrorCode::kStale, "a key is at revision %llu, expected at %llu; read it again",
              static_cast<unsigned long long>(actual.number),
              static_cast<unsigned long long>(change.expected.changed().number));
}

Result<void> SqliteHistory::record(const Change& change, Revision at, std::uint64_t position) {
  SqliteQuery query = file_.query("INSERT INTO change VALUES(?, ?, ?, ?, ?)");
  query.bind(at.number).bind(position).bind(change.key);
  if (change.kind == ChangeKind::kErase) {
    query.bind_null();
  } else {
    query.bind(change.value);
  }
  ISTHMUS_TRY_VOID(query.bind(change.lease.number).run());
  return file_
      .query("UPDATE head SET change_count = change_count + 1, change_bytes = change_bytes + ?")
      .bind(bytes_of(change))
      .run();
}

// Whether it changed anything.
Result<bool> SqliteHistory::apply(const Change& change, Revision at, std::uint64_t position) {
  if (change.kind == ChangeKind::kCheck) return false;
  if (change.kind == ChangeKind::kErase) {
    ISTHMUS_TRY_VOID(file_.query("DELETE FROM entry WHERE key = ?").bind(change.key).run());
    if (file_.changed_rows() == 0) return false;
  } else {
    if (change.lease != LeaseId{}) {
      SqliteQuery query = file_.query("SELECT 1 FROM lease WHERE id = ?");
      query.bind(change.lease.number);
      const bool found = ISTHMUS_TRY(query.next());
      if (!found) return fail(ErrorCode::kNotFound, "the lease of a new value has ended");
    }
    ISTHMUS_TRY_VOID(file_.query("INSERT OR REPLACE INTO entry VALUES(?, ?, ?, ?)")
                         .bind(change.key)
                         .bind(change.value)
                         .bind(at.number)
                         .bind(change.lease.number)
                         .run());
  }
  ISTHMUS_TRY_VOID(record(change, at, position));
  return true;
}

Result<Revision> SqliteHistory::commit(std::span<const Change> changes) {
  const Revision before = ISTHMUS_TRY(revision());
  for (const Change& change : changes) ISTHMUS_TRY_VOID(check_expected(change));
  const Revision at{before.number + 1};
  std::uint64_t position = 0;
  for (const Change& change : changes) {
    if (ISTHMUS_TRY(apply(change, at, position))) ++position;
  }
  if (position == 0) return before;
  ISTHMUS_TRY_VOID(set_revision(at));
  return at;
}

Result<void> SqliteHistory::forget(Revision until) {
  const Revision now = ISTHMUS_TRY(revision());
  if (until > now) {
    return fail(ErrorCode::kInvalid, "cannot forget up to revision %llu, the directory is at %llu",
                static_cast<unsigned long long>(until.number),
                static_cast<unsigned long long>(now.number));
  }
  ISTHMUS_TRY_VOID(
      file_
          .query("UPDATE head SET forgotten = max(forgotten, ?1), "
                 "change_count = change_count - "
                 "  (SELECT count(*) FROM change WHERE revision <= ?1), "
                 "change_bytes = change_bytes - (SELECT ifnull(sum(length(key) + "
                 "  ifnull(length(value), 0)), 0) FROM change WHERE revision <= ?1)")
          .bind(until.number)
          .run());
  return file_.query("DELETE FROM change WHERE revision <= ?").bind(until.number).run();
}

Result<void> SqliteHistory::forget_beyond(HistoryBounds bounds) {
  for (;;) {
    const std::uint64_t count = ISTHMUS_TRY(number_of(file_, "SELECT change_count FROM head"));
    const std::uint64_t bytes = ISTHMUS_TRY(number_of(file_, "SELECT change_bytes FROM head"));
    if (count == 0 || (count <= bounds.changes && bytes <= bounds.bytes)) return {};
    const Revision oldest{ISTHMUS_TRY(number_of(file_, "SELECT min(revision) FROM change"))};
    ISTHMUS_TRY_VOID(forget(oldest));
  }
}

Result<LeaseId> SqliteHistory::grant(std::uint64_t time_to_live_ns, std::uint64_t now_ns) {
  ISTHMUS_TRY_VOID(file_.query("INSERT INTO lease(ttl_ns, ends_ns) VALUES(?, ?)")
                       .bind(time_to_live_ns)
                       .bind(now_ns + time_to_live_ns)
                       .run());
  return LeaseId{ISTHMUS_TRY(number_of(file_, "SELECT last_insert_rowid()"))};
}

Result<void> SqliteHistory::keep_alive(LeaseId lease, std::uint64_t now_ns) {
  ISTHMUS_TRY_VOID(file_.query("UPDATE lease SET ends_ns = ? + ttl_ns WHERE id = ?")
                       .bind(now_ns)
                       .bind(lease.number)
                       .run());
  if (file_.changed_rows() == 1) return {};
  return fail(ErrorCode::kNotFound, "the lease has ended; its keys are gone");
}

Result<void> SqliteHistory::end_lease(LeaseId lease) {
  ISTHMUS_TRY_VOID(file_.query("DELETE FROM lease WHERE id = ?").bind(lease.number).run());
  if (file_.changed_rows() == 0) return fail(ErrorCode::kNotFound, "the lease has ended already");
  std::vector<Change> changes;
  {
    SqliteQuery query = file_.query(
        "SELECT key FROM entry WHERE lease = ?1 AND lease <> 0 ORDER BY key");
    query.bind(lease.number);
    while (ISTHMUS_TRY(query.next())) {
      changes.push_back({.kind = ChangeKind::kErase, .key = query.bytes(0), .value = {}});
    }
  }
  ISTHMUS_TRY(commit(changes));
  return {};
}

Result<bool> SqliteHistory::has_due_lease(std::uint64_t now_ns) {
  SqliteQuery query =
      file_.query("SELECT 1 FROM lease WHERE ends_ns <= ?1 OR ends_ns > ?1 + ttl_ns LIMIT 1");
  return query.bind(now_ns).next();
}

Result<void> SqliteHistory::end_due_leases(std::uint64_t now_ns) {
  // Further away than the time to live: the clock was set back.
  ISTHMUS_TRY_VOID(
      file_.query("UPDATE lease SET ends_ns = ?1 + ttl_ns WHERE ends_ns > ?1 + ttl_ns")
          .bind(now_ns)
          .run());
  std::vector<LeaseId> due;
  {
    SqliteQuery query = file_.query("SELECT id FROM lease WHERE ends_ns <= ? ORDER BY ends_ns, id");
    query.bind(now_ns);
    while (ISTHMUS_TRY(query.next())) due.push_back(LeaseId{query.number(0)});
  }
  for (const LeaseId lease : due) ISTHMUS_TRY_VOID(end_lease(lease));
  return {};
}

}  // namespace isthmus::cluster
