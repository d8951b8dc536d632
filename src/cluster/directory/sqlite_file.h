// SqliteFile: one connection to a SQLite database, with Results in place of its codes.
//
// Threading: one thread at a time; its owner locks.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace isthmus::cluster {

// One use of a statement: bind what its question marks stand for in their order, then step.
class SqliteQuery {
 public:
  SqliteQuery(sqlite3* connection, const char* sql);
  ~SqliteQuery();
  SqliteQuery(const SqliteQuery&) = delete;
  SqliteQuery& operator=(const SqliteQuery&) = delete;

  // What cannot be bound is reported by the next step.
  SqliteQuery& bind(std::uint64_t number);
  SqliteQuery& bind(std::string_view bytes);
  SqliteQuery& bind_null();

  // To the next row; false: there is none.
  Result<bool> next();
  // For statements without rows.
  Result<void> run();

  // Of the present row.
  std::uint64_t number(int column);
  std::string bytes(int column);
  bool is_null(int column);

 private:
  sqlite3* connection_;
  sqlite3_stmt* statement_ = nullptr;
  int status_;
  int bound_ = 0;
};

class SqliteFile {
 public:
  // Opened, and made if it is not there. Waits for other processes up to `patience_ms`, here and
  // in every statement; kUnreachable: they had it longer. kInvalid: not a database.
  static Result<std::unique_ptr<SqliteFile>> open(const std::string& path, int patience_ms);
  ~SqliteFile();
  SqliteFile(const SqliteFile&) = delete;
  SqliteFile& operator=(const SqliteFile&) = delete;

  SqliteQuery query(const char* sql) { return SqliteQuery(connection_, sql); }
  // Several statements, no rows.
  Result<void> execute(const char* sql);
  // kUnreachable: another file is at its path, or none. SQLite would go on with the old one, which
  // nobody else sees any more.
  Result<void> check_place();
  // Rows changed by the last statement.
  std::uint64_t changed_rows() const;

 private:
  explicit SqliteFile(sqlite3* connection) : connection_(connection) {}

  sqlite3* connection_;
};

enum class TransactionKind : std::uint8_t {
  kRead,   // One state of the file, whatever others write meanwhile.
  kWrite,  // Alone with the file: nobody else writes meanwhile.
};

// All of it or nothing: undone at its end unless it was committed.
class SqliteTransaction {
 public:
  static Result<std::unique_ptr<SqliteTransaction>> begin(SqliteFile& file, TransactionKind kind);
  ~SqliteTransaction();
  SqliteTransaction(const SqliteTransaction&) = delete;
  SqliteTransaction& operator=(const SqliteTransaction&) = delete;

  Result<void> commit();

 private:
  explicit SqliteTransaction(SqliteFile& file) : file_(file) {}

  SqliteFile& file_;
  bool is_open_ = true;
};

}  // namespace isthmus::cluster
