// Goal: the loop runs what it is told, in order, from any thread, and nothing that was cancelled.
// Method: a loop on its own thread or run to its end on this one.
#include "control/event_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>

#include "os/clock.h"
#include "os/event_fd.h"

namespace isthmus::control {
namespace {

class EventLoopTest : public testing::Test {
 protected:
  std::unique_ptr<EventLoop> loop_ = std::move(*EventLoop::create());
  std::vector<std::string> seen_;
};

TEST_F(EventLoopTest, RunsTimersInOrderOfTime) {
  const std::uint64_t now = os::now_ns();
  loop_->call_at(now + 2'000'000, [&] {
    seen_.push_back("late");
    loop_->stop();
  });
  loop_->call_at(now + 1'000'000, [&] { seen_.push_back("early"); });
  loop_->call_at(now, [&] { seen_.push_back("first"); });
  loop_->call_at(now, [&] { seen_.push_back("second"); });
  const auto cancelled = loop_->call_at(now, [&] { seen_.push_back("never"); });
  loop_->cancel(cancelled);
  loop_->run();
  EXPECT_THAT(seen_, testing::ElementsAre("first", "second", "early", "late"));
  EXPECT_GE(os::now_ns(), now + 2'000'000);
}

TEST_F(EventLoopTest, WaitsForATimerThatAPostedTaskHasSet) {
  std::thread thread([&] { loop_->run(); });
  std::promise<void> rung;
  // The loop sleeps without a timer by the time the second task comes, or it does not; both work.
  for (int i = 0; i < 2; ++i) loop_->post([] {});
  loop_->post([&] { loop_->call_at(os::now_ns() + 1'000'000, [&] { rung.set_value(); }); });
  EXPECT_EQ(rung.get_future().wait_for(std::chrono::seconds(10)), std::future_status::ready);
  loop_->stop();
  thread.join();
}

TEST_F(EventLoopTest, CallsBackForDescriptorsUntilUnwatched) {
  const os::Fd first = std::move(*os::create_event_fd());
  const os::Fd second = std::move(*os::create_event_fd());
  ASSERT_TRUE(loop_->watch(first.get(), [&] {
    seen_.push_back("first");
    os::drain(first.get());
    // Ready in the same turn, perhaps: it must not run any more.
    loop_->unwatch(second.get());
    loop_->unwatch(first.get());
    loop_->stop();
  }));
  ASSERT_TRUE(loop_->watch(second.get(), [&] {
    seen_.push_back("second");
    loop_->unwatch(second.get());
  }));
  os::signal(first.get());
  loop_->run();
  EXPECT_THAT(seen_, testing::ElementsAre("first"));
}

TEST_F(EventLoopTest, TakesNothingAfterItsEnd) {
  EXPECT_TRUE(loop_->post([&] { seen_.push_back("posted"); }));
  loop_->stop();
  loop_->run();
  EXPECT_THAT(seen_, testing::ElementsAre("posted"));  // What was promised is done.
  EXPECT_FALSE(loop_->post([&] { seen_.push_back("never"); }));
}

}  // namespace
}  // namespace isthmus::control
