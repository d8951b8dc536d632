// Goal: a node is in the directory as it is, whatever happens to the directory meanwhile, and goes
// from it when it ends.
// Method: registrations with short times against a directory in a file; the test watches it.
#include "farmem/registry/node_registration.h"

#include <gtest/gtest.h>

#include <atomic>

#include "farmem/registry/temporary_directory.h"
#include "os/clock.h"
#include "os/event_fd.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint64_t kPatienceNs = 20 * os::kNsPerSecond;

// A node's side of it.
class Node {
 public:
  explicit Node(std::uint16_t port) : port_(port), changed_(*os::create_event_fd()) {}

  RegisteredNode registered(std::string name) {
    return {.name = std::move(name),
            .version = "1",
            .facts =
                [this] {
                  return MemoryNodeFacts{.address = "10.0.0.1",
                                         .port = port_,
                                         .bytes = 100,
                                         .free_bytes = free_bytes_,
                                         .draining = draining_};
                },
            .set_draining = [this](bool draining) { draining_ = draining; },
            .changed_fd = changed_.get()};
  }
  void set_free(std::uint64_t bytes) {
    free_bytes_ = bytes;
    os::signal(changed_.get());
  }
  bool draining() const { return draining_; }

 private:
  const std::uint16_t port_;
  os::Fd changed_;
  std::atomic<std::uint64_t> free_bytes_{100};
  std::atomic<bool> draining_{false};
};

// Waits for changes of the directory until `holds` of the node's entry (null: none).
template <class Holds>
bool await(cluster::Directory& directory, const char* name, Holds holds) {
  const std::uint64_t give_up = os::now_ns() + kPatienceNs;
  auto listing = directory.list("memory/");
  auto watch = directory.watch("memory/", listing->at);
  while (os::now_ns() < give_up) {
    const auto nodes = list_memory_nodes(directory);
    const MemoryNodeEntry* found = nullptr;
    for (const MemoryNodeEntry& node : *nodes) {
      if (node.name == name) found = &node;
    }
    if (holds(found)) return true;
    (void)(*watch)->next(50);
  }
  return false;
}

struct NodeRegistrationTest : testing::Test {
  std::unique_ptr<NodeRegistration> start(Node& node, const char* name,
                                          RegistrationTimes times = {.lease_ms = 3000,
                                                                     .look_ms = 20}) {
    auto started = NodeRegistration::start(
        node.registered(name),
        [this] { return cluster::open_sqlite_directory({.path = folder.file(),
                                                        .wall_clock_ns = {}}); },
        times);
    EXPECT_TRUE(started);
    return std::move(*started);
  }
  bool awaits_free(const char* name, std::uint64_t bytes) {
    return await(*directory, name, [&](const MemoryNodeEntry* entry) {
      return entry && entry->free_bytes == bytes;
    });
  }
  bool awaits_absence(const char* name) {
    return await(*directory, name, [](const MemoryNodeEntry* entry) { return !entry; });
  }

  TemporaryDirectory folder;
  std::unique_ptr<cluster::Directory> directory = folder.open();
};

TEST_F(NodeRegistrationTest, IsThereWithWhatIsFreeAndGoesWithTheNode) {
  Node node{1};
  auto registration = start(node, "one");
  EXPECT_TRUE(awaits_free("one", 100));
  node.set_free(60);
  EXPECT_TRUE(awaits_free("one", 60));
  registration.reset();
  EXPECT_TRUE(list_memory_nodes(*directory)->empty());
}

TEST_F(NodeRegistrationTest, HearsThatItDrains) {
  Node node{1};
  const auto registration = start(node, "one");
  EXPECT_TRUE(awaits_free("one", 100));
  const auto awaits_state = [&](MemoryNodeState state) {
    return await(*directory, "one",
                 [&](const MemoryNodeEntry* entry) { return entry && entry->state == state; });
  };
  EXPECT_TRUE(request_drain(*directory, "one", DrainRequest::kDrain));
  EXPECT_TRUE(awaits_state(MemoryNodeState::kDraining));
  EXPECT_TRUE(node.draining());
  EXPECT_TRUE(request_drain(*directory, "one", DrainRequest::kServeAgain));
  EXPECT_TRUE(awaits_state(MemoryNodeState::kServing));
  EXPECT_FALSE(node.draining());
}

TEST_F(NodeRegistrationTest, LeavesANameToWhoeverHasIt) {
  Node first{1};
  Node second{2};
  auto one = start(first, "name");
  EXPECT_TRUE(awaits_free("name", 100));
  const auto other = start(second, "name");
  second.set_free(7);
  first.set_free(50);
  EXPECT_TRUE(awaits_free("name", 50));
  // The first goes. Expect: the second has the name.
  one.reset();
  EXPECT_TRUE(awaits_free("name", 7));
}

TEST_F(NodeRegistrationTest, TakesOverFromAnEarlierLifeAtTheSameAddress) {
  Node node{1};
  MemoryNodeEntry earlier{.name = "one", .address = "10.0.0.1", .port = 1, .bytes = 5,
                          .free_bytes = 5, .state = MemoryNodeState::kServing, .version = "0"};
  const auto lease = directory->grant(3'600'000);
  ASSERT_TRUE(lease);
  ASSERT_TRUE(directory->put("memory/nodes/one", encode_node_entry(earlier),
                             {.expected = cluster::Expected::absent(), .lease = lease->id}));
  const auto registration = start(node, "one");
  EXPECT_TRUE(awaits_free("one", 100));
}

TEST_F(NodeRegistrationTest, ComesBackWhenItsLeaseWasLost) {
  Node node{1};
  const auto registration = start(node, "one", {.lease_ms = 1000, .look_ms = 20});
  EXPECT_TRUE(awaits_free("one", 100));
  // As after a directory that was away for longer than the lease.
  const auto entry = directory->get("memory/nodes/one");
  ASSERT_TRUE(entry);
  ASSERT_TRUE(directory->revoke(entry->lease));
  EXPECT_TRUE(awaits_free("one", 100));
}

TEST_F(NodeRegistrationTest, ComesBackInAFileThatTookThePlaceOfTheFirst) {
  Node node{1};
  const auto registration = start(node, "one", {.lease_ms = 300, .look_ms = 20});
  EXPECT_TRUE(awaits_free("one", 100));
  directory.reset();
  for (const char* part : {"", "-wal", "-shm"}) std::filesystem::remove(folder.file() + part);
  directory = folder.open();
  EXPECT_TRUE(awaits_free("one", 100));
}

TEST_F(NodeRegistrationTest, WaitsForADirectoryThatIsAway) {
  Node node{1};
  std::atomic<int> tries = 0;
  const auto started = NodeRegistration::start(
      node.registered("one"),
      [&]() -> Result<std::unique_ptr<cluster::Directory>> {
        if (++tries < 5) return fail(ErrorCode::kUnreachable, "the directory is away");
        return cluster::open_sqlite_directory({.path = folder.file(), .wall_clock_ns = {}});
      },
      {.lease_ms = 3000, .look_ms = 10});
  ASSERT_TRUE(started);
  EXPECT_TRUE(awaits_free("one", 100));
  EXPECT_EQ(tries, 5);
}

TEST_F(NodeRegistrationTest, RefusesANameThatIsNoKey) {
  Node node{1};
  EXPECT_FALSE(NodeRegistration::start(node.registered("a/b"), [] {
    return Result<std::unique_ptr<cluster::Directory>>(fail(ErrorCode::kIo, "not asked"));
  }));
}

}  // namespace
}  // namespace isthmus::farmem
