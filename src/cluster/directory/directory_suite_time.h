// The second half of directory_suite.h: watches, leases, and a backend that goes away.
#pragma once

#include "cluster/directory/directory_suite.h"

namespace isthmus::cluster {

TEST_P(DirectorySuite, ShowsAWatchEveryChangeInOrder) {
  auto directory = open();
  const Revision before = now(*directory);
  constexpr int kPuts = 30;
  // Half of the changes before the watch, half during it, from two other clients.
  for (int i = 0; i < kPuts; ++i) ASSERT_TRUE(directory->put(key("a"), std::to_string(i)));
  auto watch = directory->watch(prefix_, before).value();
  const auto write = [&](std::string_view name) {
    auto client = open();
    for (int i = 0; i < kPuts; ++i) EXPECT_TRUE(client->put(key(name), std::to_string(i)));
  };
  std::thread b([&] { write("b"); });
  std::thread c([&] { write("c"); });
  const auto events = collect(*watch, 3 * kPuts);
  b.join();
  c.join();
  ASSERT_EQ(events.size(), 3u * kPuts);
  std::array<int, 3> next{};
  Revision last = before;
  for (const Event& event : events) {
    EXPECT_GT(event.entry.changed, last);
    last = event.entry.changed;
    int& expected = next.at(static_cast<std::size_t>(event.entry.key.back() - 'a'));
    EXPECT_EQ(event.entry.value, std::to_string(expected++));
  }

  // From the middle. Expect: the rest, the same.
  const Revision middle = events[40].entry.changed;
  const auto rest = collect(*open()->watch(prefix_, middle).value(), 3 * kPuts - 41);
  ASSERT_EQ(rest.size(), 3u * kPuts - 41);
  EXPECT_EQ(rest.front().entry.changed, events[41].entry.changed);
  EXPECT_EQ(rest.back().entry.value, events.back().entry.value);
}

TEST_P(DirectorySuite, ShowsAWatchItsPrefixAndWholeTransactions) {
  auto directory = open();
  const Revision before = now(*directory);
  auto watch = directory->watch(key("in"), before).value();
  auto everything = directory->watch("", before).value();
  ASSERT_TRUE(directory->put(key("io"), "outside"));
  ASSERT_TRUE(directory->put(key("in1"), "1"));
  const std::vector<Change> changes{put_of(key("in2"), "2"),
                                    {.kind = ChangeKind::kErase, .key = key("in1"), .value = {}},
                                    put_of(key("out"), "2")};
  const Revision done = directory->commit(changes).value();
  const auto events = collect(*watch, 3);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].entry.key, key("in1"));
  EXPECT_EQ(events[1].kind, EventKind::kPut);
  EXPECT_EQ(events[1].entry.changed, done);
  EXPECT_EQ(events[2].kind, EventKind::kErased);
  EXPECT_EQ(events[2].entry.key, key("in1"));
  EXPECT_EQ(events[2].entry.changed, done);
  EXPECT_EQ(collect(*everything, 5).size(), 5u);
  EXPECT_TRUE(watch->next(0).value().empty());
}

TEST_P(DirectorySuite, WakesAWatchForAChangeAndForItsEnd) {
  auto directory = open();
  auto watch = directory->watch(prefix_, now(*directory)).value();
  std::thread writer([&] { EXPECT_TRUE(open()->put(key("a"), "1")); });
  EXPECT_EQ(collect(*watch, 1).size(), 1u);
  writer.join();
  std::thread canceller([&] { watch->cancel(); });
  EXPECT_EQ(code_of(watch->next(kPatienceMs)), ErrorCode::kClosed);
  canceller.join();
  EXPECT_EQ(code_of(watch->next(0)), ErrorCode::kClosed);
}

TEST_P(DirectorySuite, TellsAWatchThatChangesAreForgotten) {
  auto directory = open();
  const Revision first = directory->put(key("a"), "1").value();
  ASSERT_TRUE(directory->put(key("b"), "1"));
  const Revision gone = directory->erase(key("b")).value();
  ASSERT_TRUE(directory->compact(gone));
  ASSERT_TRUE(directory->compact(first)) << "forgotten already";

  for (const Revision after : {first, Revision{gone.number - 1}, Revision{}}) {
    auto watch = directory->watch(prefix_, after).value();
    EXPECT_EQ(code_of(watch->next(kPatienceMs)), ErrorCode::kStale) << after.number;
  }
  // List, and watch from there. Expect: nothing is missed.
  const Listing listing = directory->list(prefix_).value();
  EXPECT_EQ(listing.entries.size(), 1u);
  auto watch = directory->watch(prefix_, gone).value();
  ASSERT_TRUE(directory->put(key("c"), "1"));
  EXPECT_EQ(collect(*watch, 1).front().entry.key, key("c"));
}

TEST_P(DirectorySuite, ErasesWhatBelongsToALeaseThatEnds) {
  auto directory = open();
  const Lease silent = directory->grant(1000).value();
  const Lease kept = directory->grant(1000).value();
  EXPECT_GE(silent.time_to_live_ms, 1000u);
  const std::vector<Change> changes{
      {.key = key("silent1"), .value = "1", .lease = silent.id},
      {.key = key("silent2"), .value = "1", .lease = silent.id},
      {.key = key("kept"), .value = "1", .lease = kept.id},
      {.key = key("moved"), .value = "1", .lease = silent.id}};
  const Revision made = directory->commit(changes).value();
  EXPECT_EQ(directory->get(key("kept")).value().lease, kept.id);
  // Put again without a lease, it stays.
  const Revision moved = directory->put(key("moved"), "2").value();
  auto watch = directory->watch(prefix_, moved).value();

  // One owner calls in time, one is silent. Expect: only the keys of the latter go, together.
  std::vector<Event> events;
  const std::uint64_t give_up_ns = os::now_ns() + kPatienceMs * os::kNsPerMs;
  while (events.empty() && os::now_ns() < give_up_ns) {
    ASSERT_TRUE(directory->keep_alive(kept.id));
    backend_->pass(200);
    events = watch->next(200).value();
  }
  ASSERT_EQ(events.size(), 2u);
  for (const Event& event : events) {
    EXPECT_EQ(event.kind, EventKind::kErased);
    EXPECT_GT(event.entry.changed, made);
    EXPECT_TRUE(event.entry.key.starts_with(key("silent")));
  }
  EXPECT_TRUE(directory->get(key("kept")));
  EXPECT_EQ(code_of(directory->get(key("silent1"))), ErrorCode::kNotFound);
  EXPECT_EQ(directory->get(key("moved")).value().value, "2");

  // Of what has ended nothing more can be had.
  EXPECT_EQ(code_of(directory->keep_alive(silent.id)), ErrorCode::kNotFound);
  EXPECT_EQ(code_of(directory->revoke(silent.id)), ErrorCode::kNotFound);
  EXPECT_EQ(code_of(directory->create(key("late"), "1", silent.id)), ErrorCode::kNotFound);

  // Revoked. Expect: gone at once.
  ASSERT_TRUE(directory->revoke(kept.id));
  EXPECT_EQ(code_of(directory->get(key("kept"))), ErrorCode::kNotFound);
  EXPECT_EQ(collect(*watch, 1).front().entry.key, key("kept"));
}

TEST_P(DirectorySuite, GoesOnAfterItWasAway) {
  backend_->prepare_outage();
  auto directory = backend_->open(500);
  auto quiet = directory->watch("nothing", Revision{1u << 30}).value();
  const auto put_at_last = [&](std::string_view name) {
    const std::uint64_t give_up_ns = os::now_ns() + kPatienceMs * os::kNsPerMs;
    Result<Revision> put = directory->put(key(name), "1");
    while (!put && put.error().code == ErrorCode::kUnreachable && os::now_ns() < give_up_ns) {
      (void)quiet->next(20);  // A pause: nothing will come.
      put = directory->put(key(name), "1");
    }
    return put;
  };
  const Result<Revision> before = put_at_last("before");
  ASSERT_TRUE(before) << before.error().message;
  auto watch = directory->watch(prefix_, Revision{before->number - 1}).value();
  EXPECT_EQ(collect(*watch, 1).size(), 1u);

  // Away. Expect: a change fails in time, a watch sees nothing happen.
  backend_->begin_outage();
  const std::uint64_t begin_ns = os::now_ns();
  EXPECT_EQ(code_of(directory->put(key("during"), "1")), ErrorCode::kUnreachable);
  EXPECT_LT(os::now_ns() - begin_ns, 5 * os::kNsPerSecond);
  EXPECT_TRUE(watch->next(50).value().empty());

  // Back. Expect: all that was answered is there, nothing half done is, and the watch goes on.
  backend_->end_outage();
  const Result<Revision> after = put_at_last("after");
  ASSERT_TRUE(after) << after.error().message;
  EXPECT_GT(*after, *before);
  const Listing listing = directory->list(prefix_).value();
  ASSERT_EQ(listing.entries.size(), 2u);
  EXPECT_EQ(listing.entries[0].key, key("after"));
  EXPECT_EQ(listing.entries[1].key, key("before"));
  const auto events = collect(*watch, 1);
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events[0].entry.key, key("after"));
}

}  // namespace isthmus::cluster
