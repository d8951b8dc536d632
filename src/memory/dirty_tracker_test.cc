// Goal: no dirty line is missed and no clean one reported, whoever writes and however short before
// the end; bad lists are refused.
// Method: both mechanisms; writers keep a reference of what they wrote; a replica fed with packed
// lines must equal the memory. Where the kernel has no WP_ASYNC that half is skipped by name.
#include "memory/dirty_tracker.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <random>
#include <thread>
#include <vector>

#include "memory/line_pack.h"
#include "os/anonymous_memory.h"
#include "os/userfault.h"

namespace isthmus::memory {
namespace {

constexpr std::size_t kPages = 256;
constexpr int kWriters = 4;
constexpr int kCollections = 20;

std::uint64_t address_of(const void* at) { return reinterpret_cast<std::uintptr_t>(at); }

class DirtyTrackerTest : public testing::TestWithParam<Mechanism> {
 protected:
  void SetUp() override {
    auto created = DirtyTracker::create(GetParam());
    if (!created) GTEST_SKIP() << created.error().message;
    tracker = std::move(*created);
    area = *os::AnonymousMemory::create(kPages * kPageBytes);
    for (std::size_t i = 0; i < area->size(); ++i) at(i) = static_cast<std::byte>(i % 251);
  }

  std::byte& at(std::size_t offset) { return area->data()[offset]; }
  os::AddressRange pages(std::size_t first, std::size_t count) const {
    return {address_of(area->data()) + first * kPageBytes, count * kPageBytes};
  }
  std::unique_ptr<Tracking> start(std::vector<os::AddressRange> ranges, TrackOptions options = {}) {
    auto started = tracker->start(ranges, options);
    EXPECT_TRUE(started) << (started ? "" : started.error().message);
    return started ? std::move(*started) : nullptr;
  }
  // Page number in the area to lines; reads in small steps.
  std::map<std::size_t, LineMask> drain(Tracking& tracking) {
    std::map<std::size_t, LineMask> found;
    std::array<DirtyPage, 3> some;
    while (const std::size_t count = tracking.read(some)) {
      for (std::size_t i = 0; i < count; ++i) {
        const auto page = (some[i].address - address_of(area->data())) / kPageBytes;
        EXPECT_TRUE(found.emplace(page, some[i].lines).second) << "page twice";
      }
    }
    return found;
  }

  std::unique_ptr<DirtyTracker> tracker;
  std::unique_ptr<os::AnonymousMemory> area;
};

using Found = std::map<std::size_t, LineMask>;

TEST_P(DirtyTrackerTest, ReportsExactlyTheLinesChanged) {
  // Two pieces that do not touch, in no order.
  const auto tracking = start({pages(100, 2), pages(10, 5)});
  EXPECT_EQ(tracking->page_count(), 7u);
  at(10 * kPageBytes) ^= std::byte{1};
  at(12 * kPageBytes + 4095) ^= std::byte{1};
  at(101 * kPageBytes + 640) ^= std::byte{1};
  at(50 * kPageBytes) ^= std::byte{1};  // Outside.
  at(9 * kPageBytes + 4095) ^= std::byte{1};
  at(13 * kPageBytes) = at(13 * kPageBytes);  // The same value.
  tracking->stop();
  at(11 * kPageBytes) ^= std::byte{1};  // Too late.
  EXPECT_EQ(drain(*tracking), (Found{{10, 1}, {12, LineMask{1} << 63}, {101, 1u << 10}}));
  EXPECT_TRUE(drain(*tracking).empty());
  EXPECT_EQ(tracking->counters().lines_dirty, 3u);
  EXPECT_EQ(tracking->collect().error().code, ErrorCode::kClosed);
}

TEST_P(DirtyTrackerTest, CollectionsEachHaveTheirOwn) {
  const auto tracking = start({pages(0, 4)});
  at(0) ^= std::byte{1};
  ASSERT_TRUE(tracking->collect());
  at(64) ^= std::byte{1};
  EXPECT_EQ(drain(*tracking), (Found{{0, 1}}));
  ASSERT_TRUE(tracking->collect());
  EXPECT_EQ(drain(*tracking), (Found{{0, 2}}));
  ASSERT_TRUE(tracking->collect());
  EXPECT_TRUE(drain(*tracking).empty());
}

TEST_P(DirtyTrackerTest, PastTheThresholdThePageIsWhole) {
  const auto tracking = start({pages(0, 3)}, {.threshold_lines = 2});
  for (const std::size_t line : {0, 1}) at(line * 64) ^= std::byte{1};
  for (const std::size_t line : {0, 1, 2}) at(kPageBytes + line * 64) ^= std::byte{1};
  tracking->stop();
  EXPECT_EQ(drain(*tracking), (Found{{0, 3}, {1, kAllLines}}));
  EXPECT_EQ(tracking->counters().pages_whole, 1u);

  const auto by_page = start({pages(0, 3)}, {.threshold_lines = 0});
  at(kPageBytes) ^= std::byte{1};
  by_page->stop();
  EXPECT_EQ(drain(*by_page), (Found{{1, kAllLines}}));
}

// Writers of random bytes, each in lines of its own; collections meanwhile. The replica that is
// fed with the packed lines must end equal to the memory: also in what was written last.
TEST_P(DirtyTrackerTest, ReplicaOfBusyMemoryIsExact) {
  const auto tracking = start({pages(0, kPages)}, {.base = TwinBase::kZeros});
  std::vector<std::byte> replica(area->size());
  std::vector<std::byte> buffer(5 * kMaxPackedPageBytes);
  const auto feed = [&] {
    while (const std::size_t bytes = *tracking->read_packed(buffer)) {
      LineUnpacker unpacker{{buffer.data(), bytes}, kPages};
      for (auto found = *unpacker.next(); found; found = *unpacker.next()) {
        apply_lines(*found, std::span<std::byte, kPageBytes>(&replica[found->page * kPageBytes],
                                                       kPageBytes));
      }
    }
  };
  std::vector<std::byte> reference(area->data(), area->data() + area->size());
  std::atomic<int> writing{kWriters};
  std::atomic<int> collections{0};
  std::vector<std::thread> writers;
  for (int writer = 0; writer < kWriters; ++writer) {
    writers.emplace_back([&, writer] {
      std::mt19937 random(static_cast<unsigned>(writer));
      for (int i = 0; i < 5'000 || collections < kCollections; ++i) {
        const std::size_t line = random() % (kPages * kLinesOfPage / kWriters) * kWriters;
        const std::size_t place = (line + static_cast<std::size_t>(writer)) * 64 + random() % 64;
        // Through an atomic: the bytes are looked at meanwhile.
        const auto value = static_cast<std::byte>(random());
        std::atomic_ref(at(place)).store(value, std::memory_order_relaxed);
        reference[place] = value;
      }
      --writing;
    });
  }
  while (writing > 0) {
    EXPECT_TRUE(tracking->collect());
    feed();
    ++collections;
  }
  tracking->stop();  // Before the joins, which would hide a store that is under way.
  feed();
  for (auto& writer : writers) writer.join();
  EXPECT_EQ(reference, std::vector<std::byte>(area->data(), area->data() + area->size()));
  EXPECT_EQ(replica, reference);
  EXPECT_GE(collections, kCollections);
}

TEST_P(DirtyTrackerTest, SystemAndApplicationTrackTheSamePages) {
  const auto system = start({pages(0, 8)}, {.initiator = Initiator::kSystem});
  at(4 * kPageBytes + 64) ^= std::byte{1};
  {
    const auto own = start({pages(0, 2), pages(6, 1)});
    EXPECT_EQ(own->initiator(), Initiator::kApplication);
    at(0) ^= std::byte{1};
    own->stop();
    EXPECT_EQ(drain(*own), (Found{{0, 1}}));
  }
  at(4 * kPageBytes) ^= std::byte{1};  // The application has ended its tracking only.
  system->stop();
  EXPECT_EQ(drain(*system), (Found{{0, 1}, {4, 3}}));
  EXPECT_EQ(system->initiator(), Initiator::kSystem);
}

TEST_P(DirtyTrackerTest, PagesUnmappedRemappedAndGivenBack) {
  const auto tracking = start({pages(0, 8)});
  at(0) ^= std::byte{1};
  munmap(&at(2 * kPageBytes), 2 * kPageBytes);
  madvise(&at(5 * kPageBytes), kPageBytes, MADV_DONTNEED);
  ASSERT_TRUE(tracking->collect());
  Found found = drain(*tracking);
  EXPECT_EQ(found[0], 1u);
  EXPECT_EQ(found[5], kAllLines);  // Zeros now.
  EXPECT_EQ(found.size(), 2u);
  // Other memory in the place of what was unmapped. Expect: compared all the same.
  ASSERT_NE(mmap(&at(2 * kPageBytes), 2 * kPageBytes, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
            MAP_FAILED);
  ASSERT_TRUE(tracking->collect());
  drain(*tracking);
  at(3 * kPageBytes) = std::byte{77};
  at(7 * kPageBytes) ^= std::byte{1};
  tracking->stop();
  found = drain(*tracking);
  EXPECT_EQ(found, (Found{{3, 1}, {7, 1}}));
}

TEST_P(DirtyTrackerTest, EmptyListsAndBadLists) {
  const auto nothing = start({});
  ASSERT_TRUE(nothing->collect());
  nothing->stop();
  EXPECT_TRUE(drain(*nothing).empty());

  const auto refused = [&](std::vector<os::AddressRange> ranges, TrackOptions options = {}) {
    const auto started = tracker->start(ranges, options);
    return !started && !started.error().message.empty() ? started.error().code : ErrorCode::kIo;
  };
  const std::uint64_t base = pages(0, 1).start;
  EXPECT_EQ(refused({{base + 1, kPageBytes}}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({{base, 0}}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({{base, 100}}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({{~std::uint64_t{0} - kPageBytes + 1, 2 * kPageBytes}}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({pages(0, 4), pages(3, 1)}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({pages(0, 1), {kPageBytes, kPageBytes}}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({pages(0, 1)}, {.threshold_lines = 65}), ErrorCode::kInvalid);
  EXPECT_EQ(refused({{0, std::uint64_t{1} << 47}}), ErrorCode::kNoMemory);
  mprotect(&at(kPageBytes), kPageBytes, PROT_NONE);
  EXPECT_EQ(refused({pages(0, 3)}), ErrorCode::kInvalid);
  // Expect: what was refused left nothing behind.
  const auto after = start({pages(2, 1)});
  std::array<std::byte, 16> small;
  EXPECT_EQ(after->read_packed(small).error().code, ErrorCode::kInvalid);
}

TEST_P(DirtyTrackerTest, PagesServedByAnotherAreRefused) {
  if (GetParam() == Mechanism::kCompareAll) GTEST_SKIP() << "comparing registers nothing";
  const auto other = *os::Userfault::open({.required = os::kUffdWp});
  ASSERT_TRUE(other->register_range(pages(4, 1), os::kUffdRegisterWp));
  const std::vector ranges{pages(0, 1), pages(4, 1)};
  const auto started = tracker->start(ranges, {});
  ASSERT_FALSE(started);
  EXPECT_EQ(started.error().code, ErrorCode::kBusy);
}

INSTANTIATE_TEST_SUITE_P(Both, DirtyTrackerTest,
                         testing::Values(Mechanism::kWriteProtection, Mechanism::kCompareAll),
                         [](const auto& each) {
                           return each.param == Mechanism::kCompareAll ? "CompareAll"
                                                                       : "WriteProtection";
                         });

TEST(DirtyTracker, SaysWhatItUses) {
  const auto tracker = DirtyTracker::create();
  ASSERT_TRUE(tracker);
  EXPECT_EQ((*tracker)->shortcoming().empty(),
            (*tracker)->mechanism() == Mechanism::kWriteProtection);
}

}  // namespace
}  // namespace isthmus::memory
