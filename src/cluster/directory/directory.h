// Directory is the cluster's shared state: keys with values, changed by whoever saw them last.
//
// Primer: every change gets the next number of one counter, its revision. Whoever read a key at a
// revision can change it on the condition that it is still the same: of two that race, one wins
// and the other learns it. A lease is a promise to call again in time: keys attached to it vanish
// when its owner falls silent. A watch delivers every change after a revision, in order; with the
// revision of a listing, listing and watch together miss nothing.
//
// There are two: a SQLite file for one host (sqlite_directory.h) and etcd for many
// (cluster/etcd/etcd_directory.h). Data paths never wait for either.
//
// Errors, the same from both:
//   kNotFound     no such key, or no such lease (any more)
//   kStale        overtaken: a key is not as expected, or a watch asks for forgotten changes; read
//                 again and go on from there
//   kUnreachable  the directory is away, or did not answer in time; whether a change was made is
//                 then unknown, and the next read tells
//   kInvalid      the request can never succeed: past a limit, no key, one key twice
//
// Threading: any thread may call anything, also of one watch; a watch ends before its directory.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace isthmus::cluster {

// A point in the history of a directory. 0: before everything.
struct Revision {
  std::uint64_t number = 0;
  friend constexpr auto operator<=>(Revision, Revision) = default;
};

// 0: no lease.
struct LeaseId {
  std::uint64_t number = 0;
  friend constexpr bool operator==(LeaseId, LeaseId) = default;
};

// Keys and values are any bytes. The limits are what etcd takes as it is installed: requests of
// 1.5 MiB, transactions of 128 changes.
constexpr std::size_t kMaxKeyBytes = 4096;
constexpr std::size_t kMaxValueBytes = 1u << 20;
constexpr std::size_t kMaxChanges = 128;
constexpr std::size_t kMaxCommitBytes = (1u << 20) + (256u << 10);  // All keys and values of one.
static_assert(kMaxKeyBytes + kMaxValueBytes <= kMaxCommitBytes);

struct Entry {
  std::string key;
  std::string value;
  Revision changed;  // When it got this value.
  LeaseId lease;
};

struct Listing {
  std::vector<Entry> entries;  // In the order of their keys' bytes.
  Revision at;                 // A watch after this misses nothing.
};

// What must hold of a key for a change to be made.
class Expected {
 public:
  static constexpr Expected anything() { return Expected{Kind::kAnything, {}}; }
  static constexpr Expected absent() { return Expected{Kind::kExactly, {}}; }
  // Still the entry whose `changed` this is. Revision 0 means absent.
  static constexpr Expected unchanged_since(Revision changed) {
    return Expected{Kind::kExactly, changed};
  }

  bool is_condition() const { return kind_ == Kind::kExactly; }
  Revision changed() const { return changed_; }

 private:
  enum class Kind : std::uint8_t { kAnything, kExactly };
  constexpr Expected(Kind kind, Revision changed) : kind_(kind), changed_(changed) {}

  Kind kind_;
  Revision changed_;
};

enum class ChangeKind : std::uint8_t {
  kPut,    // Creates or replaces.
  kErase,  // Fine when there is nothing to erase, unless something is expected.
  kCheck,  // Changes nothing, but the others depend on it.
};

struct Change {
  ChangeKind kind = ChangeKind::kPut;
  std::string key;
  std::string value;  // Of kPut.
  Expected expected = Expected::anything();
  LeaseId lease;  // Of kPut: the entry lives as long as this lease.
};

struct PutOptions {
  Expected expected = Expected::anything();
  LeaseId lease;
};

struct Lease {
  LeaseId id;
  std::uint64_t time_to_live_ms = 0;  // At least what was asked for.
};

enum class EventKind : std::uint8_t { kPut, kErased };

struct Event {
  EventKind kind = EventKind::kPut;
  Entry entry;  // Of kErased: its key, and the revision at which it went.
};

class Watch {
 public:
  virtual ~Watch() = default;

  // The next changes, in order; all those of one revision come together. None: nothing happened in
  // this time. A directory that is away looks like one where nothing happens; what is missed
  // meanwhile comes later. kStale: forgotten, list again and watch from there. kClosed: cancelled.
  virtual Result<std::vector<Event>> next(std::uint64_t timeout_ms) = 0;

  // Wakes whoever waits in next().
  virtual void cancel() = 0;
};

class Directory {
 public:
  virtual ~Directory() = default;

  virtual Result<Entry> get(std::string_view key) = 0;
  // All keys that begin with it; "" for everything.
  virtual Result<Listing> list(std::string_view prefix) = 0;

  // All of the changes or none, at one revision. Each key may occur once. The revision is the
  // directory's after it, which grows only if something changed.
  virtual Result<Revision> commit(std::span<const Change> changes) = 0;

  // One change each.
  Result<Revision> put(std::string_view key, std::string_view value, PutOptions options = {});
  Result<Revision> create(std::string_view key, std::string_view value, LeaseId lease = {});
  Result<Revision> erase(std::string_view key, Expected expected = Expected::anything());

  // A lease ends when keep_alive was not called for its time to live, and then its keys go.
  virtual Result<Lease> grant(std::uint64_t time_to_live_ms) = 0;
  virtual Result<void> keep_alive(LeaseId lease) = 0;
  virtual Result<void> revoke(LeaseId lease) = 0;

  // Everything under the prefix that changes after a revision. An error that a later try will not
  // mend may come from here or from the first next().
  virtual Result<std::unique_ptr<Watch>> watch(std::string_view prefix, Revision after) = 0;

  // Forgets how it came to `until`; watches after an earlier revision are then stale.
  virtual Result<void> compact(Revision until) = 0;
};

// Of a commit: what every backend checks before it asks anybody.
Result<void> check_changes(std::span<const Change> changes);
Result<void> check_key(std::string_view key);
// A day: who is silent for longer is gone.
constexpr std::uint64_t kMaxTimeToLiveMs = 24ull * 3600 * 1000;
Result<void> check_time_to_live(std::uint64_t time_to_live_ms);

// The first key after all that begin with the prefix; empty: there is none.
std::string end_of_prefix(std::string_view prefix);

}  // namespace isthmus::cluster
