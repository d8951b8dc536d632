// Goal: each call of Userfault and Pagemap does what its header says, against the running kernel.
// Method: small ranges; faults are served in SIGBUS mode or by a second thread. What an old kernel
// lacks is skipped by name.
#include "os/userfault.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <thread>
#include <vector>

#include "os/anonymous_memory.h"
#include "os/clock.h"
#include "os/pagemap.h"
#include "os/poll.h"
#include "os/process_memory.h"
#include "os/shared_memory.h"

namespace isthmus::os {
namespace {

constexpr std::size_t kPages = 8;

struct Area {
  std::unique_ptr<AnonymousMemory> memory = *AnonymousMemory::create(kPages * kPageBytes);
  std::byte* page(std::size_t index) const { return memory->data() + index * kPageBytes; }
  AddressRange range(std::size_t first = 0, std::size_t count = kPages) const {
    return {reinterpret_cast<std::uintptr_t>(page(first)), count * kPageBytes};
  }
};

// Skips the test when the kernel lacks the features.
#define OPEN_OR_SKIP(name, features)                                 \
  auto name##_opened = Userfault::open({.required = (features)});    \
  if (!name##_opened) GTEST_SKIP() << name##_opened.error().message; \
  const std::unique_ptr<Userfault> name = std::move(*name##_opened)

// With SIGBUS mode the kernel itself fails on a missing page instead of waiting for us.
bool is_missing(const std::byte* at) {
  std::byte byte;
  return !copy_memory_checked(&byte, at, 1);
}

TEST(Userfault, SaysWhichWayInAndRefusesUnknownFeatures) {
  OPEN_OR_SKIP(uffd, 0);
  EXPECT_STRNE(to_string(uffd->origin()), "unknown");
  const auto refused = Userfault::open({.required = UffdFeatures{1} << 62});
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kUnsupported);
  const auto optional = Userfault::open({.optional = UffdFeatures{1} << 62});
  ASSERT_TRUE(optional);
  EXPECT_FALSE((*optional)->has(UffdFeatures{1} << 62));
}

TEST(Userfault, CopiesPagesOnceAndTellsOfThoseThatExist) {
  OPEN_OR_SKIP(uffd, kUffdSigbus);
  const Area area;
  ASSERT_TRUE(uffd->register_range(area.range(), kUffdRegisterMissing));
  EXPECT_TRUE(is_missing(area.page(0)));
  const std::vector<std::byte> source(3 * kPageBytes, std::byte{7});

  // Expect: page 2 alone, then 0 and 1 before the one that exists.
  const auto one = uffd->copy(area.range(2, 1), source.data(), UffdProtection::kOff);
  EXPECT_EQ(one.verdict, UffdVerdict::kDone);
  const auto three = uffd->copy(area.range(0, 3), source.data(), UffdProtection::kOff);
  EXPECT_EQ(three.bytes, 2 * kPageBytes);
  const auto again = uffd->copy(area.range(2, 1), source.data(), UffdProtection::kOff);
  EXPECT_EQ(again.verdict, UffdVerdict::kExists);
  EXPECT_EQ(area.page(1)[5], std::byte{7});
  EXPECT_TRUE(is_missing(area.page(3)));

  // Expect: mistakes have their own words.
  EXPECT_EQ(uffd->copy({area.range().start + 1, kPageBytes}, source.data(), UffdProtection::kOff)
                .verdict,
            UffdVerdict::kInvalid);
  EXPECT_EQ(uffd->copy(area.range(4, 1), reinterpret_cast<void*>(kPageBytes),
                       UffdProtection::kOff).verdict,
            UffdVerdict::kBadSource);
  EXPECT_EQ(uffd->wake(area.range()).verdict, UffdVerdict::kDone);

  // Expect: unregistered memory is ordinary again.
  ASSERT_TRUE(uffd->unregister_range(area.range()));
  EXPECT_EQ(area.page(3)[0], std::byte{0});
  EXPECT_EQ(uffd->copy(area.range(5, 1), source.data(), UffdProtection::kOff).verdict,
            UffdVerdict::kGone);
}

TEST(Userfault, InstallsZeros) {
  OPEN_OR_SKIP(uffd, kUffdSigbus);
  const Area area;
  ASSERT_TRUE(uffd->register_range(area.range(), kUffdRegisterMissing));
  const auto zeroed = uffd->zero(area.range(0, 2));
  EXPECT_EQ(zeroed.verdict, UffdVerdict::kDone);
  EXPECT_EQ(zeroed.bytes, 2 * kPageBytes);
  EXPECT_EQ(area.page(1)[9], std::byte{0});
  EXPECT_TRUE(is_missing(area.page(2)));
}

TEST(Userfault, ServesFaultsAndWritesFromAnotherThread) {
  OPEN_OR_SKIP(uffd, kUffdWp);
  const Area area;
  ASSERT_TRUE(uffd->register_range(area.range(), kUffdRegisterMissing | kUffdRegisterWp));
  UffdEvent none;
  EXPECT_EQ(*uffd->read_events({&none, 1}), 0u);

  std::thread reader{[&] {
    EXPECT_EQ(area.page(1)[0], std::byte{9});  // Missing, installed write protected...
    area.page(1)[0] = std::byte{10};           // ...and then written.
  }};
  const std::vector<std::byte> source(kPageBytes, std::byte{9});
  const std::array fds{uffd->fd()};
  std::array<UffdEvent, 4> events;
  EXPECT_NE(wait_readable(fds, 20 * kNsPerSecond), 0u);
  EXPECT_EQ(*uffd->read_events(events), 1u);
  EXPECT_EQ(events[0].cause, UffdCause::kMissing);
  EXPECT_EQ(events[0].access, UffdAccess::kRead);
  EXPECT_EQ(events[0].address, area.range(1, 1).start);
  EXPECT_EQ(uffd->copy(area.range(1, 1), source.data(), UffdProtection::kOn).verdict,
            UffdVerdict::kDone);
  EXPECT_NE(wait_readable(fds, 20 * kNsPerSecond), 0u);
  EXPECT_EQ(*uffd->read_events(events), 1u);
  EXPECT_EQ(events[0].cause, UffdCause::kWriteProtected);
  EXPECT_EQ(events[0].access, UffdAccess::kWrite);
  EXPECT_EQ(uffd->protect(area.range(1, 1), UffdProtection::kOff).verdict, UffdVerdict::kDone);
  reader.join();
  EXPECT_EQ(area.page(1)[0], std::byte{10});
}

TEST(Userfault, ContinuesWithThePageCache) {
  OPEN_OR_SKIP(uffd, kUffdSigbus | kUffdMinorShared);
  const Fd file = *create_shared_memory("userfault_test", kPages * kPageBytes);
  const auto filling = *Mapping::create(file, kPages * kPageBytes);
  const auto faulting = *Mapping::create(file, kPages * kPageBytes);
  const AddressRange range{reinterpret_cast<std::uintptr_t>(faulting->data()), kPageBytes};
  ASSERT_TRUE(uffd->register_range(range, kUffdRegisterMinor));
  filling->data()[3] = std::byte{4};
  EXPECT_TRUE(is_missing(faulting->data()));
  EXPECT_EQ(uffd->proceed(range, UffdProtection::kOff).verdict, UffdVerdict::kDone);
  EXPECT_EQ(faulting->data()[3], std::byte{4});
}

TEST(Userfault, MovesPages) {
  OPEN_OR_SKIP(uffd, kUffdSigbus | kUffdMove);
  const Area area;
  const Area pool;
  ASSERT_TRUE(uffd->register_range(area.range(), kUffdRegisterMissing));
  pool.page(0)[1] = std::byte{6};
  EXPECT_EQ(uffd->move(area.range(3, 1), pool.range().start).verdict, UffdVerdict::kDone);
  EXPECT_EQ(area.page(3)[1], std::byte{6});
  EXPECT_EQ(pool.page(0)[1], std::byte{0});
}

TEST(Userfault, RemovedPagesAreAnEvent) {
  OPEN_OR_SKIP(uffd, kUffdEventRemove);
  const Area area;
  ASSERT_TRUE(uffd->register_range(area.range(), kUffdRegisterMissing));
  std::thread remover{[&] { madvise(area.page(2), 2 * kPageBytes, MADV_DONTNEED); }};
  const std::array fds{uffd->fd()};
  UffdEvent event;
  EXPECT_NE(wait_readable(fds, 20 * kNsPerSecond), 0u);
  EXPECT_EQ(*uffd->read_events({&event, 1}), 1u);
  remover.join();
  EXPECT_EQ(event.kind, UffdEventKind::kRemove);
  EXPECT_EQ(event.range, area.range(2, 2));
}

TEST(Userfault, UnmappedMemoryCannotBeRegistered) {
  OPEN_OR_SKIP(uffd, 0);
  EXPECT_FALSE(uffd->register_range({kPageBytes, kPageBytes}, kUffdRegisterMissing));
}

TEST(Pagemap, FindsWhatWasWrittenAndResumes) {
  OPEN_OR_SKIP(uffd, kUffdWp | kUffdWpAsync | kUffdWpUnpopulated);
  auto opened = Pagemap::open();
  if (!opened) GTEST_SKIP() << opened.error().message;
  const Pagemap& pagemap = **opened;
  const Area area;
  std::array<PageRun, 2> runs;
  // Expect: memory that nothing tracks is refused, not reported clean.
  EXPECT_EQ(pagemap.scan_written(area.range(), runs, AfterScan::kLeave).error().code,
            ErrorCode::kDenied);
  ASSERT_TRUE(uffd->register_range(area.range(), kUffdRegisterWp));
  ASSERT_EQ(uffd->protect(area.range(), UffdProtection::kOn).verdict, UffdVerdict::kDone);
  for (const std::size_t page : {1, 3, 4, 6}) area.page(page)[0] = std::byte{1};

  // Three runs in steps of two, twice the same while the marks stay.
  for (int round = 0; round < 2; ++round) {
    const auto after = round == 0 ? AfterScan::kLeave : AfterScan::kProtectAgain;
    const auto first = pagemap.scan_written(area.range(), runs, after);
    ASSERT_TRUE(first);
    ASSERT_EQ(first->runs, 2u);
    EXPECT_EQ(runs[1].start, area.range(3, 1).start);
    EXPECT_EQ(runs[1].end, area.range(5, 1).start);
    const std::uint64_t left = area.range().end() - first->resume_at;
    const auto second = pagemap.scan_written({first->resume_at, left}, runs, after);
    ASSERT_TRUE(second);
    ASSERT_EQ(second->runs, 1u);
    EXPECT_EQ(runs[0].start, area.range(6, 1).start);
    EXPECT_EQ(second->resume_at, area.range().end());
  }
  EXPECT_EQ(pagemap.scan_written(area.range(), runs, AfterScan::kLeave)->runs, 0u);
}

TEST(Pagemap, TellsWhatIsMapped) {
  const Area area;
  EXPECT_TRUE(is_mapped(area.range()));
  EXPECT_FALSE(is_mapped({kPageBytes, kPageBytes}));
  EXPECT_TRUE(drain_stores_of_all_threads());
}

}  // namespace
}  // namespace isthmus::os
