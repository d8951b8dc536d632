// What every directory must do, as one set of tests: for sqlite_directory_test.cc and
// ../etcd/etcd_directory_test.cc, which say how a backend is started. This half is about keys;
// directory_suite_time.h, which includes it, about watches, leases and outages.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cluster/directory/directory.h"
#include "os/clock.h"

namespace isthmus::cluster {

constexpr std::uint64_t kPatienceMs = 20'000;  // Far more than anything here takes.

// One backend, empty under the prefixes of the tests.
class DirectoryBackend {
 public:
  virtual ~DirectoryBackend() = default;

  // A client of it, as another process would have. Its calls end after `patience_ms`.
  virtual std::unique_ptr<Directory> open(std::uint64_t patience_ms) = 0;
  // Lets time pass for leases, if it is ours to say.
  virtual void pass(std::uint64_t ms) = 0;

  // Before the first open().
  virtual void prepare_outage() = 0;
  // Nothing can be changed any more.
  virtual void begin_outage() = 0;
  // By a SIGKILL in the middle of its work, or after one.
  virtual void end_outage() = 0;
};

struct BackendKind {
  // Null when it cannot run here, with the reason.
  std::function<std::unique_ptr<DirectoryBackend>(std::string& reason)> start;
};

class DirectorySuite : public testing::TestWithParam<BackendKind> {
 protected:
  void SetUp() override {
    std::string reason;
    backend_ = GetParam().start(reason);
    if (!backend_) GTEST_SKIP() << reason;
    // Of this run alone: a backend may be shared with an earlier one.
    prefix_ = std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + "/" +
              std::to_string(os::now_ns()) + "/";
  }

  std::unique_ptr<Directory> open() { return backend_->open(kPatienceMs); }
  std::string key(std::string_view name) const { return prefix_ + std::string(name); }

  static Revision now(Directory& directory) { return directory.list("nothing").value().at; }

  // The next `count` events or more; fewer only with a failure.
  static std::vector<Event> collect(Watch& watch, std::size_t count) {
    std::vector<Event> events;
    while (events.size() < count) {
      auto more = watch.next(kPatienceMs);
      if (!more || more->empty()) {
        ADD_FAILURE() << events.size() << " events of " << count << ", then "
                      << (more ? "nothing" : more.error().message);
        break;
      }
      events.insert(events.end(), more->begin(), more->end());
    }
    return events;
  }

  std::unique_ptr<DirectoryBackend> backend_;
  std::string prefix_;
};

inline Change put_of(std::string key, std::string value, Expected expected = Expected::anything()) {
  return {.key = std::move(key), .value = std::move(value), .expected = expected};
}

template <class T>
ErrorCode code_of(const Result<T>& result) {
  return result ? ErrorCode{} : result.error().code;
}

TEST_P(DirectorySuite, GivesBackWhatWasPut) {
  auto directory = open();
  EXPECT_EQ(code_of(directory->get(key("a"))), ErrorCode::kNotFound);

  const Revision first = directory->put(key("a"), "1").value();
  const Entry entry = directory->get(key("a")).value();
  EXPECT_EQ(entry.key, key("a"));
  EXPECT_EQ(entry.value, "1");
  EXPECT_EQ(entry.changed, first);
  EXPECT_EQ(entry.lease, LeaseId{});

  const Revision second = directory->put(key("a"), "2").value();
  EXPECT_EQ(second.number, first.number + 1);
  EXPECT_EQ(open()->get(key("a")).value().value, "2") << "another client";

  // Erased, and erased again. Expect: the second time nothing changes.
  const Revision erased = directory->erase(key("a")).value();
  EXPECT_EQ(erased.number, second.number + 1);
  EXPECT_EQ(code_of(directory->get(key("a"))), ErrorCode::kNotFound);
  EXPECT_EQ(directory->erase(key("a")).value(), erased);
}

TEST_P(DirectorySuite, ChangesOnlyWhatIsAsExpected) {
  auto directory = open();
  const Revision made = directory->create(key("a"), "1").value();
  EXPECT_EQ(code_of(directory->create(key("a"), "2")), ErrorCode::kStale);
  const Revision replaced =
      directory->put(key("a"), "3", {.expected = Expected::unchanged_since(made)}).value();
  EXPECT_EQ(code_of(directory->put(key("a"), "4", {.expected = Expected::unchanged_since(made)})),
            ErrorCode::kStale);
  EXPECT_EQ(code_of(directory->erase(key("a"), Expected::unchanged_since(made))),
            ErrorCode::kStale);
  EXPECT_EQ(directory->get(key("a")).value().value, "3");
  EXPECT_TRUE(directory->erase(key("a"), Expected::unchanged_since(replaced)));
  EXPECT_TRUE(directory->create(key("a"), "5"));
}

TEST_P(DirectorySuite, DoesAllOfATransactionOrNothing) {
  auto directory = open();
  const Revision a = directory->put(key("a"), "1").value();
  const Revision b = directory->put(key("b"), "1").value();

  // The last condition fails. Expect: nothing of it happens.
  std::vector<Change> changes{put_of(key("a"), "2", Expected::unchanged_since(a)),
                              {.kind = ChangeKind::kErase, .key = key("b"), .value = {}},
                              put_of(key("c"), "2", Expected::unchanged_since(b))};
  EXPECT_EQ(code_of(directory->commit(changes)), ErrorCode::kStale);
  EXPECT_EQ(directory->get(key("a")).value().changed, a);
  EXPECT_EQ(now(*directory), b);

  // With the right one. Expect: all of it, at one revision.
  changes[2].expected = Expected::absent();
  const Revision done = directory->commit(changes).value();
  EXPECT_EQ(done.number, b.number + 1);
  const Listing listing = directory->list(prefix_).value();
  ASSERT_EQ(listing.entries.size(), 2u);
  EXPECT_EQ(listing.entries[0].changed, done);
  EXPECT_EQ(listing.entries[1].key, key("c"));
  EXPECT_EQ(listing.entries[1].changed, done);

  // A check decides and changes nothing.
  Change check{.kind = ChangeKind::kCheck, .key = key("a"), .value = {},
               .expected = Expected::unchanged_since(a)};
  changes = {check, put_of(key("d"), "3")};
  EXPECT_EQ(code_of(directory->commit(changes)), ErrorCode::kStale);
  changes[0].expected = Expected::unchanged_since(done);
  EXPECT_TRUE(directory->commit(changes));
  EXPECT_EQ(directory->commit({changes.data(), 1}).value(), now(*directory));
}

TEST_P(DirectorySuite, RefusesWhatCanNeverSucceed) {
  auto directory = open();
  EXPECT_EQ(code_of(directory->get("")), ErrorCode::kInvalid);
  EXPECT_EQ(code_of(directory->put(std::string(kMaxKeyBytes + 1, 'k'), "")), ErrorCode::kInvalid);
  EXPECT_EQ(code_of(directory->put(key("a"), std::string(kMaxValueBytes + 1, 'v'))),
            ErrorCode::kInvalid);
  EXPECT_EQ(code_of(directory->commit({})), ErrorCode::kInvalid);
  std::vector<Change> changes(2, put_of(key("a"), "1"));
  EXPECT_EQ(code_of(directory->commit(changes)), ErrorCode::kInvalid) << "one key twice";
  changes.clear();
  for (std::size_t i = 0; i <= kMaxChanges; ++i) {
    changes.push_back(put_of(key(std::to_string(i)), ""));
  }
  EXPECT_EQ(code_of(directory->commit(changes)), ErrorCode::kInvalid);
  changes.pop_back();
  EXPECT_TRUE(directory->commit(changes)) << "exactly as many as are taken";
  EXPECT_EQ(code_of(directory->grant(0)), ErrorCode::kInvalid);
  EXPECT_EQ(code_of(directory->compact(Revision{now(*directory).number + 5})),
            ErrorCode::kInvalid);
}

TEST_P(DirectorySuite, TakesKeysOfAnyBytesAndListsThemInOrder) {
  auto directory = open();
  std::vector<std::string> keys{key(""), key(std::string("\0", 1)), key("\xff"), key("\xff\xff"),
                                key("'; DROP TABLE entry; --"), key("\xc3\xa9"), key("%_"),
                                key(std::string(kMaxKeyBytes - prefix_.size(), 'k'))};
  for (int i = 100; i < 200; ++i) keys.push_back(key("n" + std::to_string(i)));
  for (std::size_t i = 0; i < keys.size(); i += 100) {
    std::vector<Change> changes;
    for (std::size_t j = i; j < std::min(i + 100, keys.size()); ++j) {
      changes.push_back(put_of(keys[j], keys[j]));
    }
    ASSERT_TRUE(directory->commit(changes));
  }
  ASSERT_TRUE(directory->put("\xff\xff" + prefix_, "outside"));
  std::ranges::sort(keys);  // std::string compares bytes as unsigned.

  const Listing listing = directory->list(prefix_).value();
  ASSERT_EQ(listing.entries.size(), keys.size());
  for (std::size_t i = 0; i < keys.size(); ++i) {
    EXPECT_EQ(listing.entries[i].key, keys[i]);
    EXPECT_EQ(listing.entries[i].value, keys[i]);
  }
  EXPECT_EQ(directory->list(key("\xff")).value().entries.size(), 2u);
  EXPECT_EQ(directory->list("\xff").value().entries.size(), 1u) << "a prefix without an end";
  EXPECT_GE(directory->list("").value().entries.size(), keys.size() + 1);
  ASSERT_TRUE(directory->erase("\xff\xff" + prefix_));
}

TEST_P(DirectorySuite, TakesValuesOfNoBytesAndOfAMegabyte) {
  auto directory = open();
  const Revision before = now(*directory);
  std::string large(kMaxValueBytes, '\0');
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 7 >> 3);
  ASSERT_TRUE(directory->put(key("empty"), ""));
  ASSERT_TRUE(directory->put(key("large1"), large));
  ASSERT_TRUE(directory->put(key("large2"), large));
  EXPECT_EQ(directory->get(key("empty")).value().value, "");
  EXPECT_TRUE(directory->get(key("large1")).value().value == large);
  EXPECT_EQ(directory->list(prefix_).value().entries.size(), 3u);

  auto watch = directory->watch(prefix_, before).value();
  const auto events = collect(*watch, 3);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].kind, EventKind::kPut) << "an empty value is no erasure";
  EXPECT_TRUE(events[2].entry.value == large);
}

TEST_P(DirectorySuite, LetsOneOfTwoRacersCreate) {
  constexpr int kRounds = 20;
  std::array<std::vector<int>, 2> won;
  const auto race = [&](std::size_t racer) {
    auto directory = open();
    for (int i = 0; i < kRounds; ++i) {
      auto made = directory->create(key(std::to_string(i)), std::to_string(racer));
      if (made) won[racer].push_back(i);
      EXPECT_TRUE(made || made.error().code == ErrorCode::kStale) << made.error().message;
    }
  };
  std::thread other(race, 1);
  race(0);
  other.join();
  EXPECT_EQ(won[0].size() + won[1].size(), static_cast<std::size_t>(kRounds));
  auto directory = open();
  for (const std::size_t racer : {0, 1}) {
    for (const int i : won[racer]) {
      EXPECT_EQ(directory->get(key(std::to_string(i))).value().value, std::to_string(racer));
    }
  }
}

TEST_P(DirectorySuite, LosesNoIncrementOfTwoCounters) {
  constexpr int kIncrements = 20;
  auto shared = open();
  ASSERT_TRUE(shared->create(key("count"), "0"));
  const auto count = [&](Directory& directory) {
    for (int done = 0; done < kIncrements;) {
      const Entry entry = directory.get(key("count")).value();
      auto put = directory.put(key("count"), std::to_string(std::stoi(entry.value) + 1),
                               {.expected = Expected::unchanged_since(entry.changed)});
      if (put) ++done;
      if (!put && put.error().code != ErrorCode::kStale) {
        ADD_FAILURE() << put.error().message;
        return;
      }
    }
  };
  // Two threads of one client, and one of another.
  std::thread second([&] { count(*shared); });
  std::thread third([&] { count(*open()); });
  count(*shared);
  second.join();
  third.join();
  EXPECT_EQ(shared->get(key("count")).value().value, std::to_string(3 * kIncrements));
}

}  // namespace isthmus::cluster
