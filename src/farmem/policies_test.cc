// Goal: the pure parts of the pager decide as their headers say.
// Method: traces with known answers: scans, loops, hot sets, strides, reads that become writes.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "farmem/frames.h"
#include "farmem/prefetch.h"
#include "farmem/replacement.h"
#include "farmem/write_forecast.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint32_t kPages = 10'000;
constexpr std::uint32_t kCapacity = 1'000;

// A cache of kCapacity pages under this policy; uses are seen only as the pager sees them.
class Cache {
 public:
  Cache() : replacement_(std::move(*Replacement::create(kPages, kCapacity))), here_(kPages) {}

  // True: it was here.
  bool touch(PageIndex page) {
    if (here_[page]) return true;
    while (replacement_->count() >= kCapacity) {
      PageIndex victims[8];
      const std::uint32_t count = replacement_->choose(victims);
      EXPECT_GT(count, 0u);
      for (std::uint32_t index = 0; index < count; ++index) {
        EXPECT_TRUE(here_[victims[index]]);
        here_[victims[index]] = false;
      }
    }
    here_[page] = true;
    replacement_->insert(page);
    return false;
  }
  Replacement& replacement() { return *replacement_; }
  void forget(PageIndex page) {
    replacement_->remove(page);
    here_[page] = false;
  }
  bool is_here(PageIndex page) const { return here_[page]; }

 private:
  std::unique_ptr<Replacement> replacement_;
  std::vector<bool> here_;
};

TEST(Replacement, AScanLeavesAloneWhatCameBack) {
  Cache cache;
  // Twice through 1100 pages: those evicted come back and count as used.
  for (int round = 0; round < 4; ++round) {
    for (PageIndex page = 0; page < 1'100; ++page) cache.touch(page);
  }
  const auto before = [&] {
    std::uint32_t count = 0;
    for (PageIndex page = 0; page < 1'100; ++page) count += cache.is_here(page);
    return count;
  };
  const std::uint32_t kept = before();
  for (PageIndex page = 2'000; page < 10'000; ++page) cache.touch(page);
  EXPECT_GT(before(), kept * 8 / 10);
}

TEST(Replacement, UsedPagesGoRoundOnce) {
  Cache cache;
  for (PageIndex page = 0; page < kCapacity; ++page) cache.touch(page);
  cache.replacement().note_use(0);
  for (PageIndex page = 2'000; page < 2'500; ++page) cache.touch(page);
  EXPECT_TRUE(cache.is_here(0));
  EXPECT_FALSE(cache.is_here(1));
}

TEST(Replacement, RemovedPagesAreNotChosen) {
  Cache cache;
  for (PageIndex page = 0; page < 100; ++page) cache.touch(page);
  for (PageIndex page = 0; page < 100; page += 2) cache.forget(page);
  EXPECT_EQ(cache.replacement().count(), 50u);
  std::vector<PageIndex> victims(200);
  EXPECT_EQ(cache.replacement().choose(victims), 50u);
  EXPECT_TRUE(std::all_of(victims.begin(), victims.begin() + 50, [](auto v) { return v % 2; }));
  EXPECT_EQ(cache.replacement().choose(victims), 0u);
}

TEST(Replacement, HotPagesMissLess) {
  Cache cache;
  std::mt19937 random(7);
  std::uint32_t misses = 0;
  constexpr std::uint32_t kTouches = 100'000;
  for (std::uint32_t touch = 0; touch < kTouches; ++touch) {
    // 90 % of the touches on 500 pages.
    const bool hot = random() % 10 != 0;
    misses += !cache.touch(static_cast<PageIndex>(random() % (hot ? 500 : kPages)));
  }
  // FIFO alone would miss about 21 % here: hot pages are carried out with the rest.
  EXPECT_LT(misses, kTouches * 17 / 100);
}

TEST(Prefetcher, WidensOnAStreamAndStopsWithIt) {
  Prefetcher prefetcher(PrefetchPolicy::kAdaptive);
  EXPECT_EQ(prefetcher.on_fault(100).count, 0u);
  PageIndex page = 101;
  std::uint32_t widest = 0;
  for (int fault = 0; fault < 10; ++fault) {
    const Window window = prefetcher.on_fault(page);
    EXPECT_EQ(window.stride, 1);
    EXPECT_GE(window.count, widest);
    widest = window.count;
    page += window.count + 1;
  }
  EXPECT_EQ(widest, kMostWindow);
  // Elsewhere: nothing is known yet.
  EXPECT_EQ(prefetcher.on_fault(5'000).count, 0u);
}

TEST(Prefetcher, CountsWhatWasWalkedThrough) {
  Prefetcher prefetcher(PrefetchPolicy::kAdaptive);
  prefetcher.on_fault(0);
  const Window first = prefetcher.on_fault(1);
  ASSERT_GT(first.count, 0u);
  EXPECT_EQ(prefetcher.on_fault(2 + first.count).used, first.count);
}

TEST(Prefetcher, FollowsStridesEitherWay) {
  for (const int stride : {4, -3}) {
    Prefetcher prefetcher(PrefetchPolicy::kAdaptive);
    std::int64_t page = 5'000;
    Window window;
    for (int fault = 0; fault < 3; ++fault, page += stride) {
      window = prefetcher.on_fault(static_cast<PageIndex>(page));
    }
    EXPECT_EQ(window.stride, stride);
    EXPECT_GT(window.count, 0u);
  }
}

TEST(Prefetcher, FollowsSeveralStreamsAtOnce) {
  Prefetcher prefetcher(PrefetchPolicy::kAdaptive);
  std::array<PageIndex, 4> at{0, 1'000, 2'000, 3'000};
  Window window;
  for (int round = 0; round < 8; ++round) {
    for (PageIndex& page : at) {
      window = prefetcher.on_fault(page);
      page += window.count + 1;
    }
  }
  EXPECT_EQ(window.count, kMostWindow);
}

TEST(Prefetcher, GuessesLittleOnRandomFaults) {
  Prefetcher prefetcher(PrefetchPolicy::kAdaptive);
  std::mt19937 random(3);
  std::uint64_t guessed = 0;
  for (int fault = 0; fault < 10'000; ++fault) {
    guessed += prefetcher.on_fault(static_cast<PageIndex>(random() % 65'536)).count;
  }
  EXPECT_LT(guessed, 1'000u);
}

TEST(Prefetcher, TheOtherPoliciesAreWhatTheySay) {
  Prefetcher none(PrefetchPolicy::kNone);
  Prefetcher next(PrefetchPolicy::kNext);
  for (PageIndex page = 0; page < 100; ++page) {
    EXPECT_EQ(none.on_fault(page).count, 0u);
    EXPECT_EQ(next.on_fault(page * 37).count, kNextWindow);
  }
}

TEST(WriteForecast, FollowsWhatHappens) {
  WriteForecast forecast;
  EXPECT_FALSE(forecast.most_are_written());
  for (int page = 0; page < 1'000; ++page) {
    forecast.note_protected(1);
    forecast.note_write();
  }
  EXPECT_TRUE(forecast.most_are_written());
  forecast.note_protected(400);
  EXPECT_FALSE(forecast.most_are_written());
}

TEST(Frames, ComeRoundInOrder) {
  std::vector<std::byte> staging(16 * os::kPageBytes);
  auto frames = std::move(*Frames::create(staging));
  EXPECT_EQ(frames->next_for_arrival(5).first, 0u);
  frames->take({0, 5});
  EXPECT_EQ(frames->next_for_arrival(5).first, 5u);
  EXPECT_EQ(frames->next_for_arrival(5).count, 3u);  // The end of the ring.
  frames->take({5, 3});
  frames->at(2).state = FrameState::kArriving;
  EXPECT_EQ(frames->next_for_arrival(5).first, 0u);
  EXPECT_EQ(frames->next_for_arrival(5).count, 2u);
  frames->take({0, 2});
  EXPECT_EQ(frames->next_for_arrival(5).count, 0u);
  // The other ring is not touched by that.
  EXPECT_EQ(frames->next_for_leaving(8).first, 8u);
  EXPECT_EQ(frames->next_for_leaving(8).count, 8u);
}

}  // namespace
}  // namespace isthmus::farmem
