// Goal: no slot that a living member has is ever given to another page, and what dead ones had
// comes back.
// Method: real children that take, drop, write and are killed; the counts are in shared memory.
#include "farmem/slot_pool.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <set>

namespace isthmus::farmem {
namespace {

constexpr std::uint32_t kPages = 1000;  // Not whole pages of table.

class SlotPoolTest : public testing::Test {
 protected:
  void open(std::uint32_t slots, std::uint32_t members = kMostMembers) {
    auto pool = SlotPool::create(
        {.page_count = kPages, .slot_count = slots, .most_members = members});
    ASSERT_TRUE(pool) << pool.error().message;
    pool_ = std::move(*pool);
  }
  void take_all() {
    for (PageIndex page = 0; page < kPages; ++page) ASSERT_TRUE(pool_->make_own(page)) << page;
  }
  // Does `work`, then waits to be killed.
  pid_t start_child(const std::function<void()>& work) {
    int ends[2];
    EXPECT_EQ(pipe(ends), 0);
    pool_->before_fork();
    const pid_t child = fork();
    if (child == 0) {
      close(ends[0]);
      pool_->after_fork_in_child();
      work();
      close(ends[1]);
      for (;;) pause();
    }
    pool_->after_fork_in_parent();
    close(ends[1]);
    char nothing = 0;
    EXPECT_EQ(read(ends[0], &nothing, 1), 0);
    close(ends[0]);
    return child;
  }
  static void end_child(pid_t child) {
    kill(child, SIGKILL);
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFSIGNALED(status));
  }
  std::uint32_t taken(std::uint32_t slots) const {
    std::uint32_t sum = 0;
    for (SlotIndex slot = 0; slot < slots; ++slot) sum += pool_->references_of(slot);
    return sum;
  }

  std::unique_ptr<SlotPool> pool_;
};

TEST_F(SlotPoolTest, PagesHaveTheirOwnNumbersWhileTheyCan) {
  open(kPages);
  EXPECT_EQ(pool_->slot(3), SlotPool::kNoSlot);
  take_all();
  for (PageIndex page = 0; page < kPages; ++page) EXPECT_EQ(pool_->slot(page), page);
  pool_->drop(3);
  EXPECT_EQ(pool_->slot(3), SlotPool::kNoSlot);
  EXPECT_EQ(pool_->references_of(3), 0u);
}

TEST_F(SlotPoolTest, ASharedSlotIsLeftForAFreeOne) {
  open(2 * kPages);
  take_all();
  const pid_t child = start_child([] {});
  EXPECT_TRUE(pool_->has_shared(0));
  EXPECT_EQ(taken(2 * kPages), 2 * kPages);
  take_all();
  std::set<SlotIndex> slots;
  for (PageIndex page = 0; page < kPages; ++page) {
    EXPECT_FALSE(pool_->has_shared(page));
    slots.insert(pool_->slot(page));
  }
  EXPECT_EQ(slots.size(), kPages);
  EXPECT_EQ(*slots.begin(), kPages);  // The child has all that are below.
  EXPECT_EQ(pool_->forget_dead_members(), 0u);
  EXPECT_FALSE(pool_->is_alone());
  end_child(child);
  EXPECT_EQ(pool_->forget_dead_members(), 1u);
  EXPECT_TRUE(pool_->is_alone());
  EXPECT_EQ(taken(2 * kPages), kPages);
}

TEST_F(SlotPoolTest, NoneIsFreeUntilTheDeadAreForgotten) {
  open(2 * kPages);
  take_all();
  for (int turn = 0; turn < 5; ++turn) {
    const pid_t child = start_child([this] { take_all(); });
    EXPECT_FALSE(pool_->has_shared(0));  // The child has left it.
    pool_->drop(0);
    EXPECT_TRUE(pool_->make_own(0));
    const pid_t other = start_child([] {});
    EXPECT_FALSE(pool_->make_own(0));
    end_child(child);
    EXPECT_EQ(pool_->forget_dead_members(), 1u);
    EXPECT_TRUE(pool_->make_own(0));
    end_child(other);
    EXPECT_EQ(pool_->forget_dead_members(), 1u);
    EXPECT_EQ(taken(2 * kPages), kPages);
  }
}

TEST_F(SlotPoolTest, AMemberThatEndsInItsWritesLeavesThoseSlotsTaken) {
  constexpr std::uint32_t kLeft = 3;
  open(2 * kPages + kLeft);
  take_all();
  const pid_t child = start_child([this] {
    take_all();
    pool_->begin_write(7, {.first = pool_->slot(10), .count = kLeft});
    pool_->begin_write(8, {.first = pool_->slot(500), .count = 1});
    pool_->end_write(8);
  });
  end_child(child);
  EXPECT_EQ(pool_->forget_dead_members(), 1u);
  EXPECT_EQ(taken(2 * kPages + kLeft), kPages + kLeft);
  // Its place is as new.
  end_child(start_child([this] { take_all(); }));
  EXPECT_EQ(pool_->forget_dead_members(), 1u);
  EXPECT_EQ(taken(2 * kPages + kLeft), kPages + kLeft);
}

TEST_F(SlotPoolTest, AProgramThatIsReplacedIsNoMemberAnyMore) {
  open(2 * kPages);
  take_all();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  pool_->before_fork();
  const pid_t child = fork();
  if (child == 0) {
    pool_->after_fork_in_child();
    dup2(ends[1], STDOUT_FILENO);
    execl("/bin/sh", "sh", "-c", "echo; kill -STOP $$", nullptr);
    _exit(1);
  }
  pool_->after_fork_in_parent();
  char begun = 0;
  EXPECT_EQ(read(ends[0], &begun, 1), 1);  // It is another program now.
  EXPECT_EQ(pool_->forget_dead_members(), 1u);
  EXPECT_EQ(waitpid(child, nullptr, WNOHANG), 0);
  EXPECT_EQ(taken(2 * kPages), kPages);
  end_child(child);
  close(ends[0]);
  close(ends[1]);
}

TEST_F(SlotPoolTest, ChildrenOutliveTheirParents) {
  open(2 * kPages);
  take_all();
  const pid_t child = start_child([this] {
    const pid_t grandchild = start_child([] {});
    if (pool_->slot(5) != 5 || pool_->references_of(5) != 3) _exit(1);
    end_child(grandchild);
    if (pool_->forget_dead_members() != 1 || pool_->references_of(5) != 2) _exit(1);
  });
  EXPECT_EQ(pool_->references_of(5), 2u);
  end_child(child);
  EXPECT_EQ(pool_->forget_dead_members(), 1u);
  EXPECT_EQ(pool_->references_of(5), 1u);
}

TEST_F(SlotPoolTest, TooManyMembersAreNone) {
  open(kPages, 2);
  take_all();
  const pid_t first = start_child([] {});
  const pid_t second = start_child([this] {
    if (pool_->is_member() || pool_->slot(0) != SlotPool::kNoSlot) _exit(1);
  });
  EXPECT_EQ(pool_->references_of(0), 2u);
  end_child(second);
  EXPECT_EQ(pool_->forget_dead_members(), 0u);
  end_child(first);
  EXPECT_EQ(pool_->forget_dead_members(), 1u);
}

}  // namespace
}  // namespace isthmus::farmem
