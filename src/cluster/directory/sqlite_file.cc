#include "cluster/directory/sqlite_file.h"

#include <sqlite3.h>

#include "base/assert.h"
#include "os/clock.h"

namespace isthmus::cluster {
namespace {

// Turning a new file to WAL needs it for oneself for a moment, and SQLite does not wait for that.
constexpr int kOpeningPauseMs = 5;

std::unexpected<Error> failure(sqlite3* connection, int status, const char* attempt) {
  const ErrorCode code = [status] {
    switch (status & 0xff) {
      case SQLITE_BUSY:
      case SQLITE_LOCKED:
      case SQLITE_PROTOCOL:  // Gave up a race for the locks of the WAL.
      case SQLITE_CANTOPEN:  // Its folder is away.
        return ErrorCode::kUnreachable;
      case SQLITE_NOTADB:
      case SQLITE_CORRUPT:
      case SQLITE_TOOBIG:
        return ErrorCode::kInvalid;
      case SQLITE_PERM:
      case SQLITE_READONLY:
      case SQLITE_AUTH:
        return ErrorCode::kDenied;
      case SQLITE_FULL:
      case SQLITE_NOMEM:
        return ErrorCode::kNoMemory;
      default:
        return ErrorCode::kIo;
    }
  }();
  return fail(code, "directory file, %s: %s", attempt,
              connection != nullptr ? sqlite3_errmsg(connection) : sqlite3_errstr(status));
}

}  // namespace

SqliteQuery::SqliteQuery(sqlite3* connection, const char* sql) : connection_(connection) {
  status_ = sqlite3_prepare_v2(connection, sql, -1, &statement_, nullptr);
}

SqliteQuery::~SqliteQuery() { sqlite3_finalize(statement_); }

SqliteQuery& SqliteQuery::bind(std::uint64_t number) {
  if (status_ == SQLITE_OK) {
    status_ = sqlite3_bind_int64(statement_, ++bound_, static_cast<sqlite3_int64>(number));
  }
  return *this;
}

SqliteQuery& SqliteQuery::bind(std::string_view bytes) {
  // Without a pointer SQLite would bind NULL, not the value of no bytes.
  const char* data = bytes.empty() ? "" : bytes.data();
  if (status_ == SQLITE_OK) {
    status_ = sqlite3_bind_blob64(statement_, ++bound_, data, bytes.size(), SQLITE_TRANSIENT);
  }
  return *this;
}

SqliteQuery& SqliteQuery::bind_null() {
  if (status_ == SQLITE_OK) status_ = sqlite3_bind_null(statement_, ++bound_);
  return *this;
}

Result<bool> SqliteQuery::next() {
  if (status_ != SQLITE_OK) return failure(connection_, status_, "preparing a statement");
  const int status = sqlite3_step(statement_);
  if (status == SQLITE_ROW) return true;
  if (status == SQLITE_DONE) return false;
  return failure(connection_, status, "a statement");
}

Result<void> SqliteQuery::run() {
  const bool has_row = ISTHMUS_TRY(next());
  ISTHMUS_ASSERT(!has_row);
  return {};
}

std::uint64_t SqliteQuery::number(int column) {
  return static_cast<std::uint64_t>(sqlite3_column_int64(statement_, column));
}

std::string SqliteQuery::bytes(int column) {
  const void* data = sqlite3_column_blob(statement_, column);
  const int count = sqlite3_column_bytes(statement_, column);
  if (data == nullptr || count <= 0) return {};
  return std::string(static_cast<const char*>(data), static_cast<std::size_t>(count));
}

bool SqliteQuery::is_null(int column) {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

Result<std::unique_ptr<SqliteFile>> SqliteFile::open(const std::string& path, int patience_ms) {
  sqlite3* connection = nullptr;
  const int status =
      sqlite3_open_v2(path.c_str(), &connection,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  std::unique_ptr<SqliteFile> file{new SqliteFile(connection)};
  if (status != SQLITE_OK) return failure(connection, status, ("opening " + path).c_str());
  sqlite3_busy_timeout(connection, patience_ms);

  const std::uint64_t give_up_ns =
      os::now_ns() + static_cast<std::uint64_t>(patience_ms) * os::kNsPerMs;
  for (;;) {
    // FULL: what was answered outlives a power cut too, for one fsync a change.
    auto prepared = file->execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;");
    if (prepared) return file;
    if (prepared.error().code != ErrorCode::kUnreachable || os::now_ns() >= give_up_ns) {
      return std::unexpected(std::move(prepared.error()));
    }
    sqlite3_sleep(kOpeningPauseMs);
  }
}

SqliteFile::~SqliteFile() {
  const int status = sqlite3_close(connection_);
  ISTHMUS_ASSERT(status == SQLITE_OK);  // No query outlives its file.
}

Result<void> SqliteFile::execute(const char* sql) {
  const int status = sqlite3_exec(connection_, sql, nullptr, nullptr, nullptr);
  if (status != SQLITE_OK) return failure(connection_, status, "a statement");
  return {};
}

Result<void> SqliteFile::check_place() {
  int has_moved = 0;
  sqlite3_file_control(connection_, "main", SQLITE_FCNTL_HAS_MOVED, &has_moved);
  if (has_moved == 0) return {};
  return fail(ErrorCode::kUnreachable, "directory file %s is not there any more",
              sqlite3_db_filename(connection_, "main"));
}

std::uint64_t SqliteFile::changed_rows() const {
  return static_cast<std::uint64_t>(sqlite3_changes64(connection_));
}

Result<std::unique_ptr<SqliteTransaction>> SqliteTransaction::begin(SqliteFile& file,
                                                                    TransactionKind kind) {
  ISTHMUS_TRY_VOID(file.check_place());
  // A reader that turned into a writer could find that others have written since it read.
  ISTHMUS_TRY_VOID(file.execute(kind == TransactionKind::kWrite ? "BEGIN IMMEDIATE" : "BEGIN"));
  return std::unique_ptr<SqliteTransaction>(new SqliteTransaction(file));
}

SqliteTransaction::~SqliteTransaction() {
  // Some failures have rolled back already, and then this fails, which is as good.
  if (is_open_) (void)file_.execute("ROLLBACK");
}

Result<void> SqliteTransaction::commit() {
  ISTHMUS_TRY_VOID(file_.execute("COMMIT"));
  is_open_ = false;
  return {};
}

}  // namespace isthmus::cluster
