// Goal: whatever the pager does, a program reads what it last wrote, and local memory stays within
// its limit.
// Method: a model of a store in this process, with and without delay; every way of delivering
// faults; patterns, random accesses by several threads against a reference, losses.
#include "farmem/pager.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "farmem/fault_messages.h"
#include "farmem/fault_signal.h"
#include "farmem/model_store.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint64_t kRegionBytes = 32u << 20;
constexpr std::uint32_t kPages = kRegionBytes / os::kPageBytes;
constexpr std::uint64_t kLocalBytes = 8u << 20;

struct Setting {
  FaultDelivery delivery;
  std::uint32_t polls_until_done;
  PrefetchPolicy prefetch;
  bool remappable = true;
};

class PagerTest : public testing::TestWithParam<Setting> {
 protected:
  void SetUp() override { open({.region_bytes = kRegionBytes, .local_bytes = kLocalBytes}); }

  void open(PagerOptions options) {
    signal_.reset();
    messages_.reset();
    pager_.reset();
    options.delivery = GetParam().delivery;
    options.prefetch = GetParam().prefetch;
    auto store = ModelStore::create(
        {.slot_count = kPages,
         .polls_until_done = GetParam().polls_until_done,
         .remappable = GetParam().remappable});
    ASSERT_TRUE(store) << store.error().message;
    store_ = std::move(*store);
    auto pager = Pager::create(*store_, options);
    if (!pager && pager.error().code == ErrorCode::kDenied) GTEST_SKIP() << pager.error().message;
    ASSERT_TRUE(pager) << pager.error().message;
    pager_ = std::move(*pager);
    if (options.delivery == FaultDelivery::kSignal) {
      auto signal = FaultSignal::start(*pager_);
      ASSERT_TRUE(signal) << signal.error().message;
      signal_ = std::move(*signal);
    } else {
      auto messages = FaultMessages::start(*pager_);
      ASSERT_TRUE(messages) << messages.error().message;
      messages_ = std::move(*messages);
    }
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
  void expect_within_limit() {
    const PagerStats stats = pager_->stats();
    EXPECT_LE(stats.pages_local + kStagingFrames, stats.local_limit_pages);
  }
  std::uint32_t present() {
    std::uint32_t count = 0;
    for (std::uint32_t page = 0; page < kPages; ++page) {
      count += os::is_page_present(pages(page, 1).start);
    }
    return count;
  }

  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<Pager> pager_;
  std::unique_ptr<FaultSignal> signal_;
  std::unique_ptr<FaultMessages> messages_;
};

TEST_P(PagerTest, KeepsWhatWasWritten) {
  for (std::uint32_t page = 0; page < kPages; ++page) word(page, page % 512) = page + 1;
  expect_within_limit();
  EXPECT_LE(present(), (kLocalBytes / os::kPageBytes) - kStagingFrames);
  for (std::uint32_t page = 0; page < kPages; ++page) {
    ASSERT_EQ(word(page, page % 512), page + 1) << page;
    ASSERT_EQ(word(page, (page + 1) % 512), 0u) << page;
  }
  for (std::uint32_t page = kPages; page-- > 0;) ASSERT_EQ(word(page, page % 512), page + 1);
  expect_within_limit();
}

TEST_P(PagerTest, FirstTouchAsksNobody) {
  for (std::uint32_t page = 0; page < kPages / 8; ++page) ASSERT_EQ(word(page), 0u);
  const PagerStats stats = pager_->stats();
  EXPECT_EQ(stats.pages_read, 0u);
  EXPECT_EQ(stats.pages_written, 0u);
}

TEST_P(PagerTest, PagesThatStayZeroAreNeverWritten) {
  for (std::uint32_t page = 0; page < kPages; ++page) ASSERT_EQ(word(page), 0u);
  const PagerStats stats = pager_->stats();
  EXPECT_EQ(stats.pages_written, 0u);
  EXPECT_GT(stats.evicted_zero, 0u);
}

TEST_P(PagerTest, CleanPagesAreWrittenOnce) {
  for (std::uint32_t page = 0; page < kPages; ++page) word(page) = page + 1;
  // Two rounds of reading: the first evicts what is dirty still.
  for (int round = 0; round < 2; ++round) {
    for (std::uint32_t page = 0; page < kPages; ++page) ASSERT_EQ(word(page), page + 1);
  }
  const std::uint64_t written = pager_->stats().pages_written;
  EXPECT_EQ(written, kPages);
  for (std::uint32_t page = 0; page < kPages; ++page) ASSERT_EQ(word(page), page + 1);
  EXPECT_EQ(pager_->stats().pages_written, written);
  EXPECT_GT(pager_->stats().evicted_clean, kPages / 2);
}

TEST_P(PagerTest, PagesWrittenOnceAreExpectedToBeWrittenAgain) {
  for (std::uint32_t page = 0; page < kPages; ++page) word(page) = page + 1;
  // Reads, then writes, in an order without streams; half of the pages are never written.
  const auto round = [&](bool write) {
    for (std::uint32_t turn = 0; turn < kPages; ++turn) {
      const std::uint32_t page = turn * 2'731 % kPages;
      ASSERT_EQ(word(page), page + 1);
      if (write && page % 2 == 0) word(page, 7) = word(page, 7) + 1;
    }
  };
  round(true);
  round(true);
  const PagerStats before = pager_->stats();
  round(true);
  const PagerStats after = pager_->stats();
  EXPECT_LT(after.faults_write - before.faults_write, kPages / 8);
  EXPECT_GT(after.evicted_clean - before.evicted_clean, kPages / 3);
  for (int times = 0; times < 24; ++times) round(false);
  const std::uint64_t written = pager_->stats().pages_written;
  round(false);
  EXPECT_LT(pager_->stats().pages_written - written, kPages / 4);
}

TEST_P(PagerTest, DiscardedPagesAreZeros) {
  for (std::uint32_t page = 0; page < kPages; ++page) word(page) = page + 1;
  pager_->discard(pages(0, kPages / 2));
  const std::uint64_t read = pager_->stats().pages_read;
  for (std::uint32_t page = 0; page < kPages / 2; ++page) ASSERT_EQ(word(page), 0u) << page;
  EXPECT_EQ(pager_->stats().pages_read, read);
  for (std::uint32_t page = kPages / 2; page < kPages; ++page) ASSERT_EQ(word(page), page + 1);
}

TEST_P(PagerTest, PinnedPagesStay) {
  for (std::uint32_t page = 0; page < kPages; ++page) word(page) = page + 1;
  const auto pinned = pager_->pin(pages(100, 50), os::UffdAccess::kRead);
  ASSERT_TRUE(pinned) << pinned.error().message;
  for (std::uint32_t page = 200; page < kPages; ++page) ASSERT_EQ(word(page), page + 1);
  for (std::uint32_t page = 100; page < 150; ++page) {
    ASSERT_TRUE(os::is_page_present(pages(page, 1).start)) << page;
  }
  pager_->unpin(pages(100, 50));
  for (std::uint32_t page = 200; page < kPages; ++page) ASSERT_EQ(word(page), page + 1);
  EXPECT_FALSE(os::is_page_present(pages(120, 1).start));
  // More than there is room for.
  EXPECT_FALSE(pager_->pin(pages(0, kPages), os::UffdAccess::kRead));
  for (std::uint32_t page = 0; page < kPages; ++page) ASSERT_EQ(word(page), page + 1);
}

TEST_P(PagerTest, PrefetchedPagesAreFoundInFrames) {
  for (std::uint32_t page = 0; page < kPages; ++page) word(page) = page + 1;
  ASSERT_EQ(pager_->state_of(pages(64, 1).start), PageState::kRemote);
  pager_->prefetch(pages(64, 32));
  EXPECT_EQ(pager_->state_of(pages(64, 1).start), PageState::kStaged);
  const std::uint64_t read = pager_->stats().pages_read;
  for (std::uint32_t page = 64; page < 96; ++page) ASSERT_EQ(word(page), page + 1);
  EXPECT_GE(pager_->stats().faults_staged, 1u);
  if (GetParam().prefetch == PrefetchPolicy::kNone) {
    EXPECT_EQ(pager_->stats().pages_read, read);
  }
}

TEST_P(PagerTest, AgreesWithAReferenceUnderRandomAccess) {
  std::vector<std::uint64_t> reference(kPages, 0);
  std::mt19937 random(4711);
  for (int round = 0; round < 60'000; ++round) {
    const std::uint32_t page = random() % kPages;
    switch (random() % 16) {
      case 0: {
        const std::uint32_t count = std::min<std::uint32_t>(random() % 16 + 1, kPages - page);
        pager_->discard(pages(page, count));
        std::fill_n(reference.begin() + page, count, 0);
        break;
      }
      case 1: pager_->prefetch(pages(page, std::min<std::uint32_t>(8, kPages - page))); break;
      case 2: case 3: case 4: case 5: case 6:
        word(page, page % 512) = reference[page] = random();
        break;
      default: ASSERT_EQ(word(page, page % 512), reference[page]) << page << " " << round;
    }
  }
  expect_within_limit();
}

TEST_P(PagerTest, ServesThreadsAtOnce) {
  constexpr int kThreads = 4;
  std::atomic<std::uint32_t> wrong{0};
  std::vector<std::thread> threads;
  // Each thread has a word of its own in every page.
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&, thread] {
      std::vector<std::uint64_t> reference(kPages, 0);
      std::mt19937 random(static_cast<unsigned>(thread));
      const auto index = static_cast<std::uint32_t>(thread) * 100;
      for (int round = 0; round < 15'000; ++round) {
        const std::uint32_t page = random() % kPages;
        if (random() % 2 == 0) {
          word(page, index) = reference[page] = random();
        } else if (word(page, index) != reference[page]) {
          ++wrong;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0u);
  expect_within_limit();
}

TEST_P(PagerTest, RefusesWhatCannotBe) {
  PagerOptions options{.region_bytes = kRegionBytes, .local_bytes = kLeastLocalBytes - 1};
  EXPECT_EQ(Pager::create(*store_, options).error().code, ErrorCode::kInvalid);
  options = {.region_bytes = 2 * kRegionBytes, .local_bytes = kLocalBytes};
  EXPECT_EQ(Pager::create(*store_, options).error().code, ErrorCode::kNoMemory);
  options = {.region_bytes = 100, .local_bytes = kLocalBytes};
  EXPECT_EQ(Pager::create(*store_, options).error().code, ErrorCode::kInvalid);
}

TEST_P(PagerTest, ALostStoreEndsTheProcessWithAMessage) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(
      {
        open({.region_bytes = kRegionBytes, .local_bytes = kLocalBytes});
        for (std::uint32_t page = 0; page < kPages; ++page) word(page) = page + 1;
        store_->lose_everything();
        std::uint64_t sum = 0;
        for (std::uint32_t page = 0; page < kPages; ++page) sum += word(page);
        word(0) = sum;
      },
      testing::ExitedWithCode(125), "far memory is lost");
}

INSTANTIATE_TEST_SUITE_P(
    All, PagerTest,
    testing::Values(Setting{FaultDelivery::kSignal, 0, PrefetchPolicy::kAdaptive},
                    Setting{FaultDelivery::kSignal, 3, PrefetchPolicy::kAdaptive},
                    Setting{FaultDelivery::kSignal, 0, PrefetchPolicy::kNone},
                    Setting{FaultDelivery::kSignal, 2, PrefetchPolicy::kAdaptive, false},
                    Setting{FaultDelivery::kMessage, 0, PrefetchPolicy::kAdaptive},
                    Setting{FaultDelivery::kMessage, 2, PrefetchPolicy::kNext}),
    [](const auto& setting) {
      return std::string(to_string(setting.param.delivery)) + "_" +
             to_string(setting.param.prefetch) + "_" +
             std::to_string(setting.param.polls_until_done) +
             (setting.param.remappable ? "" : "_copied");
    });

}  // namespace
}  // namespace isthmus::farmem
