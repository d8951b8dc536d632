// Goal: a child of fork() has what its parent had, wherever that was, and neither sees what the
// other writes later; both stay within their limits; whoever ends first leaves the other whole.
// Method: real children over a model of a store, which tell by their exit status how it went.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <functional>
#include <random>
#include <vector>

#include "farmem/fault_messages.h"
#include "farmem/fault_signal.h"
#include "farmem/model_store.h"
#include "farmem/pager.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint32_t kPages = 4096;
constexpr std::uint64_t kLocalBytes = 4u << 20;
constexpr int kWrong = 9;

struct Setting {
  FaultDelivery delivery;
  std::uint32_t polls_until_done;
  bool remappable = true;
};

class PagerForkTest : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override { open(3 * kPages); }

  void open(std::uint32_t slots) {
    signal_.reset();
    messages_.reset();
    pager_.reset();
    auto store = ModelStore::create({.slot_count = slots,
                                     .polls_until_done = GetParam().polls_until_done,
                                     .remappable = GetParam().remappable});
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
    auto pager = Pager::create(*store_, {.region_bytes = kPages * os::kPageBytes,
                                         .local_bytes = kLocalBytes,
                                         .delivery = GetParam().delivery});
    if (!pager && pager.error().code == ErrorCode::kDenied) GTEST_SKIP() << pager.error().message;
    ASSERT_TRUE(pager) << pager.error().message;
    pager_ = std::move(*pager);
    ASSERT_TRUE(deliver());
  }

  bool deliver() {
    if (GetParam().delivery == FaultDelivery::kSignal) {
      if (signal_ != nullptr) return true;  // A child has it from its parent.
      auto signal = FaultSignal::start(*pager_);
      if (signal) signal_ = std::move(*signal);
      return signal.has_value();
    }
    auto messages = FaultMessages::start(*pager_);
    static_cast<void>(messages_.release());  // The threads of a parent are not here.
    if (messages) messages_ = std::move(*messages);
    return messages.has_value();
  }

  // The child ends with what `work` returns.
  pid_t start_child(const std::function<int()>& work) {
    pager_->before_fork();
    const pid_t child = fork();
    if (child == 0) {
      if (!pager_->after_fork_in_child() || !deliver()) _exit(2);
      _exit(work());
    }
    pager_->after_fork_in_parent();
    return child;
  }
  static int status_of(pid_t child) {
    int status = 0;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

  volatile std::uint64_t& word(std::uint32_t page, std::uint32_t index = 0) {
    // SAFETY: within the region; the pager makes it readable.
    return reinterpret_cast<volatile std::uint64_t*>(pager_->region().start +
                                                     std::uint64_t{page} * os::kPageBytes)[index];
  }
  os::AddressRange pages(std::uint32_t first, std::uint32_t count) {
    return {pager_->region().start + std::uint64_t{first} * os::kPageBytes,
            std::uint64_t{count} * os::kPageBytes};
  }
  void write_all(std::uint64_t salt, std::uint32_t step = 1) {
    for (std::uint32_t page = 0; page < kPages; page += step) word(page) = page + salt;
  }
  std::uint32_t wrong_pages(std::uint64_t salt) {
    std::uint32_t wrong = 0;
    for (std::uint32_t page = 0; page < kPages; ++page) wrong += word(page) != page + salt;
    return wrong;
  }
  bool within_limit() {
    std::uint32_t present = 0;
    for (std::uint32_t page = 0; page < kPages; ++page) {
      present += os::is_page_present(pages(page, 1).start);
    }
    return present + kStagingFrames <= kLocalBytes / os::kPageBytes;
  }

  std::unique_ptr<Store> store_;
  std::unique_ptr<Pager> pager_;
  std::unique_ptr<FaultSignal> signal_;
  std::unique_ptr<FaultMessages> messages_;
};

TEST_P(PagerForkTest, AChildHasWhatWasInTheStore) {
  write_all(1);
  ASSERT_EQ(pager_->state_of(pages(0, 1).start), PageState::kRemote);
  pager_->discard(pages(7, 1));
  const pid_t child = start_child([&] {
    if (word(7) != 0) return kWrong;
    word(7) = 7 + 1;
    return wrong_pages(1) == 0 && within_limit() ? 0 : kWrong;
  });
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(word(7), 0u);
  word(7) = 7 + 1;
  EXPECT_EQ(wrong_pages(1), 0u);
}

TEST_P(PagerForkTest, NeitherSeesWhatTheOtherWrites) {
  write_all(1);
  for (std::uint32_t page = 0; page < kPages / 2; ++page) ASSERT_EQ(word(page), page + 1);
  const pid_t child = start_child([&] {
    for (std::uint64_t salt = 1'000; salt < 1'003; ++salt) {
      write_all(salt);
      if (wrong_pages(salt) > 0) return kWrong;
    }
    return within_limit() ? 0 : kWrong;
  });
  for (std::uint64_t salt = 2'000; salt < 2'003; ++salt) {
    write_all(salt);
    EXPECT_EQ(wrong_pages(salt), 0u);
  }
  EXPECT_EQ(status_of(child), 0);
  EXPECT_EQ(wrong_pages(2'002), 0u);
  EXPECT_TRUE(within_limit());
}

// Each has its reference, and discards too.
TEST_P(PagerForkTest, BothAgreeWithTheirReferences) {
  std::vector<std::uint64_t> reference(kPages, 0);
  std::mt19937 random(17);
  const auto churn = [&](int rounds) {
    for (int round = 0; round < rounds; ++round) {
      const std::uint32_t page = random() % kPages;
      switch (random() % 8) {
        case 0: {
          const std::uint32_t count = std::min<std::uint32_t>(random() % 16 + 1, kPages - page);
          pager_->discard(pages(page, count));
          std::fill_n(reference.begin() + page, count, 0);
          break;
        }
        case 1: case 2: case 3: word(page, page % 512) = reference[page] = random(); break;
        default:
          if (word(page, page % 512) != reference[page]) return false;
      }
    }
    return true;
  };
  ASSERT_TRUE(churn(20'000));
  for (unsigned turn = 0; turn < 4; ++turn) {
    const pid_t child = start_child([&] {
      random.seed(turn);
      return churn(10'000) ? 0 : kWrong;
    });
    EXPECT_TRUE(churn(10'000));
    EXPECT_EQ(status_of(child), 0);
  }
}

TEST_P(PagerForkTest, AncestorsMayEndFirst) {
  write_all(1);
  std::array<int, 2> ends{};
  ASSERT_EQ(pipe(ends.data()), 0);
  // Each writes something of its own, and only the last one tells.
  const std::function<int(int)> descend = [&](int depth) {
    write_all(1'000u * static_cast<unsigned>(depth), 3);
    if (depth < 4) {
      start_child([&descend, depth] { return descend(depth + 1); });
      return 0;
    }
    for (std::uint32_t page = 0; page < kPages; ++page) {
      if (word(page) != page + (page % 3 == 0 ? 4'000 : 1)) return kWrong;
    }
    const char right = within_limit() ? 'y' : 'n';
    return write(ends[1], &right, 1) == 1 ? 0 : kWrong;
  };
  EXPECT_EQ(status_of(start_child([&] { return descend(1); })), 0);
  close(ends[1]);
  char right = 0;
  EXPECT_EQ(read(ends[0], &right, 1), 1);
  EXPECT_EQ(right, 'y');
  close(ends[0]);
  EXPECT_EQ(wrong_pages(1), 0u);
}

// There is room for one child's copies at a time.
TEST_P(PagerForkTest, WhatKilledChildrenHadIsUsedAgain) {
  open(2 * kPages + kPages / 2);
  write_all(1);
  for (std::uint64_t turn = 0; turn < 8; ++turn) {
    std::array<int, 2> ends{};
    ASSERT_EQ(pipe(ends.data()), 0);
    const pid_t child = start_child([&] {
      write_all(100 + turn);
      const char ready = wrong_pages(100 + turn) == 0 ? 'y' : 'n';
      if (write(ends[1], &ready, 1) != 1) return kWrong;
      for (std::uint64_t more = 0;; ++more) write_all(more);  // Killed anywhere.
    });
    close(ends[1]);
    char ready = 0;
    EXPECT_EQ(read(ends[0], &ready, 1), 1);
    EXPECT_EQ(ready, 'y');
    close(ends[0]);
    kill(child, SIGKILL);
    EXPECT_EQ(status_of(child), -SIGKILL);
    ASSERT_EQ(wrong_pages(turn + 1), 0u);
    write_all(turn + 2);
  }
}

TEST_P(PagerForkTest, TooLittleRoomEndsOneAndLeavesTheOther) {
  open(kPages);
  write_all(1);
  const pid_t child = start_child([&] {
    write_all(2);
    return 0;
  });
  EXPECT_EQ(status_of(child), 125);
  EXPECT_EQ(wrong_pages(1), 0u);
  write_all(3);  // Its room is the parent's again.
  EXPECT_EQ(wrong_pages(3), 0u);
}

TEST_P(PagerForkTest, AForkThatFailsCostsNothing) {
  write_all(1);
  for (std::uint32_t turn = 0; turn < 20; ++turn) {
    pager_->before_fork();
    pager_->after_fork_in_parent();
  }
  write_all(2);
  EXPECT_EQ(status_of(start_child([&] { return wrong_pages(2) == 0 ? 0 : kWrong; })), 0);
}

INSTANTIATE_TEST_SUITE_P(All, PagerForkTest,
                         testing::Values(Setting{FaultDelivery::kSignal, 0},
                                         Setting{FaultDelivery::kSignal, 2, false},
                                         Setting{FaultDelivery::kMessage, 0},
                                         Setting{FaultDelivery::kMessage, 2}),
                         [](const auto& setting) {
                           return std::string(to_string(setting.param.delivery)) + "_" +
                                  std::to_string(setting.param.polls_until_done) +
                                  (setting.param.remappable ? "" : "_copied");
                         });

}  // namespace
}  // namespace isthmus::farmem
