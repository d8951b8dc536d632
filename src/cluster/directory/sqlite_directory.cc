#include "cluster/directory/sqlite_directory.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>

#include "base/assert.h"
#include "cluster/directory/sqlite_file.h"
#include "cluster/directory/sqlite_history.h"
#include "os/clock.h"

namespace isthmus::cluster {
namespace {

constexpr std::uint64_t kMaxPatienceMs = 60'000;

class SqliteDirectory final : public Directory {
 public:
  SqliteDirectory(SqliteDirectoryOptions options, std::unique_ptr<SqliteFile> file)
      : options_(std::move(options)), file_(std::move(file)), history_(*file_) {}
  ~SqliteDirectory() override { ISTHMUS_ASSERT(watch_count_ == 0); }

  Result<Entry> get(std::string_view key) override;
  Result<Listing> list(std::string_view prefix) override;
  Result<Revision> commit(std::span<const Change> changes) override;
  Result<Lease> grant(std::uint64_t time_to_live_ms) override;
  Result<void> keep_alive(LeaseId lease) override;
  Result<void> revoke(LeaseId lease) override;
  Result<std::unique_ptr<Watch>> watch(std::string_view prefix, Revision after) override;
  Result<void> compact(Revision until) override;

 private:
  friend class SqliteWatch;

  // Reads or changes the history with the due leases ended, alone and all or nothing.
  template <class Step>
  auto reading(Step step) -> decltype(step());
  template <class Step>
  auto writing(Step step) -> decltype(step());
  // The same for who has the mutex.
  template <class Step>
  auto reading_locked(Step step) -> decltype(step());
  template <class Step>
  auto writing_locked(Step step) -> decltype(step());

  const SqliteDirectoryOptions options_;
  std::mutex mutex_;  // Of all below.
  std::condition_variable changed_;
  std::unique_ptr<SqliteFile> file_;
  SqliteHistory history_;
  std::atomic<int> watch_count_ = 0;
};

class SqliteWatch final : public Watch {
 public:
  SqliteWatch(SqliteDirectory& directory, std::string_view prefix, Revision after)
      : directory_(directory), prefix_(prefix), after_(after) {
    ++directory_.watch_count_;
  }
  ~SqliteWatch() override { --directory_.watch_count_; }

  Result<std::vector<Event>> next(std::uint64_t timeout_ms) override;
  void cancel() override;

 private:
  SqliteDirectory& directory_;
  const std::string prefix_;
  Revision after_;              // Everything up to here was delivered. The directory's mutex.
  bool is_cancelled_ = false;  // The directory's mutex.
};

template <class Step>
auto SqliteDirectory::writing_locked(Step step) -> decltype(step()) {
  auto transaction = ISTHMUS_TRY(SqliteTransaction::begin(*file_, TransactionKind::kWrite));
  ISTHMUS_TRY_VOID(history_.end_due_leases(options_.wall_clock_ns()));
  auto result = step();
  if (!result) return result;
  const HistoryBounds bounds{.changes = options_.kept_changes, .bytes = options_.kept_bytes};
  ISTHMUS_TRY_VOID(history_.forget_beyond(bounds));
  ISTHMUS_TRY_VOID(transaction->commit());
  changed_.notify_all();
  return result;
}

template <class Step>
auto SqliteDirectory::reading_locked(Step step) -> decltype(step()) {
  if (ISTHMUS_TRY(history_.has_due_lease(options_.wall_clock_ns()))) {
    ISTHMUS_TRY_VOID(writing_locked([] { return Result<void>{}; }));
  }
  auto transaction = ISTHMUS_TRY(SqliteTransaction::begin(*file_, TransactionKind::kRead));
  return step();
}

template <class Step>
auto SqliteDirectory::writing(Step step) -> decltype(step()) {
  const std::lock_guard lock(mutex_);
  return writing_locked(step);
}

template <class Step>
auto SqliteDirectory::reading(Step step) -> decltype(step()) {
  const std::lock_guard lock(mutex_);
  return reading_locked(step);
}

Result<Entry> SqliteDirectory::get(std::string_view key) {
  ISTHMUS_TRY_VOID(check_key(key));
  return reading([&] { return history_.get(key); });
}

Result<Listing> SqliteDirectory::list(std::string_view prefix) {
  return reading([&]() -> Result<Listing> {
    return Listing{.entries = ISTHMUS_TRY(history_.list(prefix)),
                   .at = ISTHMUS_TRY(history_.revision())};
  });
}

Result<Revision> SqliteDirectory::commit(std::span<const Change> changes) {
  ISTHMUS_TRY_VOID(check_changes(changes));
  return writing([&] { return history_.commit(changes); });
}

Result<Lease> SqliteDirectory::grant(std::uint64_t time_to_live_ms) {
  ISTHMUS_TRY_VOID(check_time_to_live(time_to_live_ms));
  return writing([&]() -> Result<Lease> {
    const std::uint64_t ns = time_to_live_ms * os::kNsPerMs;
    return Lease{.id = ISTHMUS_TRY(history_.grant(ns, options_.wall_clock_ns())),
                 .time_to_live_ms = time_to_live_ms};
  });
}

Result<void> SqliteDirectory::keep_alive(LeaseId lease) {
  return writing([&] { return history_.keep_alive(lease, options_.wall_clock_ns()); });
}

Result<void> SqliteDirectory::revoke(LeaseId lease) {
  return writing([&] { return history_.end_lease(lease); });
}

Result<void> SqliteDirectory::compact(Revision until) {
  return writing([&] { return history_.forget(until); });
}

Result<std::unique_ptr<Watch>> SqliteDirectory::watch(std::string_view prefix, Revision after) {
  return std::make_unique<SqliteWatch>(*this, prefix, after);
}

Result<std::vector<Event>> SqliteWatch::next(std::uint64_t timeout_ms) {
  timeout_ms = std::min<std::uint64_t>(timeout_ms, 1ull << 40);  // Centuries; the sum stays a time.
  const std::uint64_t end_ns = os::now_ns() + timeout_ms * os::kNsPerMs;
  std::unique_lock lock(directory_.mutex_);
  for (;;) {
    if (is_cancelled_) return fail(ErrorCode::kClosed, "the watch was cancelled");
    auto happened =
        directory_.reading_locked([&] { return directory_.history_.events(prefix_, after_); });
    if (happened) {
      // Not back to a smaller revision, should somebody watch from the future.
      after_ = std::max(after_, happened->up_to);
      if (!happened->events.empty()) return std::move(happened->events);
    } else if (happened.error().code != ErrorCode::kUnreachable) {
      return std::unexpected(std::move(happened.error()));
    }
    const std::uint64_t now_ns = os::now_ns();
    if (now_ns >= end_ns) return std::vector<Event>{};
    const std::uint64_t left_ms = (end_ns - now_ns) / os::kNsPerMs + 1;
    const std::uint64_t wait_ms = std::min(left_ms, directory_.options_.poll_interval_ms);
    directory_.changed_.wait_for(lock, std::chrono::milliseconds(wait_ms));
  }
}

void SqliteWatch::cancel() {
  const std::lock_guard lock(directory_.mutex_);
  is_cancelled_ = true;
  directory_.changed_.notify_all();
}

}  // namespace

Result<std::unique_ptr<Directory>> open_sqlite_directory(SqliteDirectoryOptions options) {
  if (options.poll_interval_ms == 0 || options.patience_ms > kMaxPatienceMs) {
    return fail(ErrorCode::kInvalid, "a directory file wants an interval above 0 and a patience of "
                "at most %llu ms", static_cast<unsigned long long>(kMaxPatienceMs));
  }
  if (!options.wall_clock_ns) options.wall_clock_ns = os::wall_clock_ns;
  auto file = ISTHMUS_TRY(SqliteFile::open(options.path, static_cast<int>(options.patience_ms)));
  ISTHMUS_TRY_VOID(SqliteHistory(*file).prepare());
  return std::make_unique<SqliteDirectory>(std::move(options), std::move(file));
}

}  // namespace isthmus::cluster
