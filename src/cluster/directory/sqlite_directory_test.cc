// Goal: the SQLite directory does what every directory does, and its file survives whatever its
// processes do.
// Method: the common suite with a clock of the test's; child processes that die by SIGKILL while
// they write; files of others; bounds of a few changes.
#include "cluster/directory/sqlite_directory.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <thread>

#include "base/assert.h"
#include "cluster/directory/directory_suite_time.h"
#include "cluster/directory/sqlite_file.h"

namespace isthmus::cluster {
namespace {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "isthmus-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string file() const { return (path_ / "directory.db").string(); }

 private:
  std::filesystem::path path_;
};

// A child process that does something with a file of its own opening. Fork before this process
// opens the same file: SQLite must not be carried across.
class Child {
 public:
  // `work` begins when go() is called and says with its argument when it has come far enough.
  explicit Child(const std::function<void(const std::function<void()>& report)>& work) {
    ISTHMUS_ASSERT(pipe(go_.data()) == 0 && pipe(reported_.data()) == 0);
    process_ = fork();
    ISTHMUS_ASSERT(process_ >= 0);
    if (process_ > 0) return;
    char byte = 0;
    if (read(go_[0], &byte, 1) == 1) {
      work([&] { ISTHMUS_ASSERT(write(reported_[1], &byte, 1) == 1); });
      pause();
    }
    _exit(1);
  }
  ~Child() {
    end();
    for (const int fd : {go_[0], go_[1], reported_[0], reported_[1]}) close(fd);
  }

  void go() {
    char byte = 0;
    ISTHMUS_ASSERT(write(go_[1], &byte, 1) == 1 && read(reported_[0], &byte, 1) == 1);
  }
  void end() {
    if (process_ < 0) return;
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
    process_ = -1;
  }

 private:
  std::array<int, 2> go_{};
  std::array<int, 2> reported_{};
  pid_t process_ = -1;
};

// Half of a change, and the file for itself.
void hold_file(const std::string& path, const std::function<void()>& report) {
  auto file = SqliteFile::open(path, 1000).value();
  auto transaction = SqliteTransaction::begin(*file, TransactionKind::kWrite).value();
  ISTHMUS_ASSERT(file->execute("UPDATE head SET revision = revision + 100;"
                               "UPDATE entry SET value = x'00';"));
  report();
  pause();
}

class SqliteBackend final : public DirectoryBackend {
 public:
  std::unique_ptr<Directory> open(std::uint64_t patience_ms) override {
    return open_sqlite_directory({.path = folder_.file(),
                                  .patience_ms = patience_ms,
                                  .wall_clock_ns = [this] { return now_ns_.load(); }})
        .value();
  }
  void pass(std::uint64_t ms) override { now_ns_ += ms * os::kNsPerMs; }
  void prepare_outage() override {
    holder_.emplace([path = folder_.file()](const auto& report) { hold_file(path, report); });
  }
  void begin_outage() override { holder_->go(); }
  void end_outage() override { holder_->end(); }

 private:
  TemporaryFolder folder_;
  std::atomic<std::uint64_t> now_ns_ = os::wall_clock_ns();
  std::optional<Child> holder_;
};

const BackendKind kSqlite{[](std::string&) { return std::make_unique<SqliteBackend>(); }};
INSTANTIATE_TEST_SUITE_P(Sqlite, DirectorySuite, testing::Values(kSqlite),
                         [](const auto&) { return std::string("file"); });

TEST(SqliteDirectory, OutlivesAProcessKilledWhileItWrites) {
  const TemporaryFolder folder;
  Child writer([&](const auto& report) {
    auto directory = open_sqlite_directory({.path = folder.file()}).value();
    for (int i = 0;; ++i) {
      const std::vector<Change> changes{put_of("a", std::to_string(i)),
                                        put_of("b", std::to_string(i))};
      ISTHMUS_ASSERT(directory->commit(changes));
      if (i == 0) report();
    }
  });
  writer.go();
  auto directory = open_sqlite_directory({.path = folder.file()}).value();
  auto watch = directory->watch("", Revision{}).value();
  std::size_t seen = 0;
  while (seen < 20) seen += watch->next(kPatienceMs).value().size();
  writer.end();

  // Expect: both halves of the last change, or neither; and history has no hole.
  EXPECT_EQ(directory->get("a").value().value, directory->get("b").value().value);
  const Listing listing = directory->list("").value();
  ASSERT_EQ(listing.entries.size(), 2u);
  auto again = directory->watch("", Revision{}).value();
  Revision last{1};
  while (last < listing.at) {
    const auto events = again->next(kPatienceMs).value();
    ASSERT_FALSE(events.empty());
    for (std::size_t i = 0; i < events.size(); i += 2) {
      EXPECT_EQ(events[i].entry.changed.number, last.number + 1);
      EXPECT_EQ(events.at(i + 1).entry.changed, events[i].entry.changed);
      last = events[i].entry.changed;
    }
  }
  EXPECT_TRUE(directory->put("a", "after"));
}

TEST(SqliteDirectory, IsMadeByManyAtOnce) {
  const TemporaryFolder folder;
  constexpr std::uint64_t kMakers = 4;
  std::vector<std::thread> makers;
  for (std::uint64_t i = 0; i < kMakers; ++i) {
    makers.emplace_back([&, i] {
      auto directory = open_sqlite_directory({.path = folder.file(), .patience_ms = kPatienceMs});
      ASSERT_TRUE(directory) << directory.error().message;
      EXPECT_TRUE((*directory)->create(std::to_string(i), ""));
    });
  }
  for (auto& maker : makers) maker.join();
  auto directory = open_sqlite_directory({.path = folder.file()}).value();
  const Listing listing = directory->list("").value();
  EXPECT_EQ(listing.entries.size(), kMakers);
  EXPECT_EQ(listing.at.number, 1 + kMakers);
}

TEST(SqliteDirectory, RefusesFilesOfOthers) {
  const TemporaryFolder folder;
  std::ofstream(folder.file()) << std::string(4096, 'x');
  EXPECT_EQ(code_of(open_sqlite_directory({.path = folder.file()})), ErrorCode::kInvalid);

  const TemporaryFolder second;
  ASSERT_TRUE(SqliteFile::open(second.file(), 1000).value()->execute("CREATE TABLE theirs(a)"));
  EXPECT_EQ(code_of(open_sqlite_directory({.path = second.file()})), ErrorCode::kInvalid);

  // Made by a later version of ours.
  const TemporaryFolder third;
  ASSERT_TRUE(open_sqlite_directory({.path = third.file()}));
  ASSERT_TRUE(SqliteFile::open(third.file(), 1000).value()->execute("PRAGMA user_version = 2"));
  EXPECT_EQ(code_of(open_sqlite_directory({.path = third.file()})), ErrorCode::kInvalid);

  EXPECT_EQ(code_of(open_sqlite_directory({.path = third.file() + "/no/folder"})),
            ErrorCode::kUnreachable);
}

TEST(SqliteDirectory, KeepsOnlySoMuchHistory) {
  const TemporaryFolder folder;
  auto directory = open_sqlite_directory(
                       {.path = folder.file(), .kept_changes = 3, .kept_bytes = 1000}).value();
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(directory->put("a", std::to_string(i)));
  // At revision 6; 4, 5 and 6 are kept.
  EXPECT_EQ(code_of(directory->watch("", Revision{2}).value()->next(0)), ErrorCode::kStale);
  EXPECT_EQ(directory->watch("", Revision{3}).value()->next(0).value().size(), 3u);
  // A large change pushes out the others, and one too large even itself.
  ASSERT_TRUE(directory->put("a", std::string(998, 'x')));
  EXPECT_EQ(code_of(directory->watch("", Revision{5}).value()->next(0)), ErrorCode::kStale);
  EXPECT_EQ(directory->watch("", Revision{6}).value()->next(0).value().size(), 1u);
  ASSERT_TRUE(directory->put("a", std::string(1000, 'x')));
  EXPECT_EQ(code_of(directory->watch("", Revision{7}).value()->next(0)), ErrorCode::kStale);
  EXPECT_TRUE(directory->watch("", Revision{8}).value()->next(0).value().empty());
}

TEST(SqliteDirectory, LengthensNoLeaseWhenTheClockIsSetBack) {
  const TemporaryFolder folder;
  std::uint64_t now_ns = 1'000'000 * os::kNsPerSecond;
  auto directory =
      open_sqlite_directory({.path = folder.file(), .wall_clock_ns = [&] { return now_ns; }})
          .value();
  const Lease lease = directory->grant(10'000).value();
  ASSERT_TRUE(directory->create("a", "", lease.id));
  now_ns -= 500'000 * os::kNsPerSecond;
  EXPECT_TRUE(directory->get("a"));
  now_ns += 9 * os::kNsPerSecond;
  EXPECT_TRUE(directory->get("a"));
  now_ns += os::kNsPerSecond;
  EXPECT_EQ(code_of(directory->get("a")), ErrorCode::kNotFound);
}

}  // namespace
}  // namespace isthmus::cluster
