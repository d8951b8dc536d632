// Goal: somebody always moves the engine, and it is the right one.
// Method: an engine without queue pairs over a port that notes which thread asks it for packets.
#include "verbs/progress.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <thread>

#include "os/poll.h"
#include "os/random.h"
#include "os/shared_memory.h"
#include "rdma/engine.h"

namespace isthmus::verbs {
namespace {

constexpr std::uint64_t kPatienceNs = 5 * os::kNsPerSecond;

class NotingPort final : public rdma::PacketPort {
 public:
  NotingPort() : arrived_(std::move(*os::create_event_fd())) {}

  void send(std::span<const rdma::OutgoingRun>) override {}
  std::uint32_t max_segments() const override { return 1; }
  std::span<const rdma::IncomingDatagram> receive() override {
    if (os::wait_readable(std::array{arrived_.get()}, 0) != 0) {
      os::drain(arrived_.get());
      served_by = std::this_thread::get_id();
      ++served;
    }
    return {};
  }
  void ask_for_hops() override {}
  bool join(const wire::IpAddress&) override { return false; }
  void leave(const wire::IpAddress&) override {}

  int fd() const { return arrived_.get(); }
  void arrive() { os::signal(arrived_.get()); }

  std::atomic<int> served = 0;
  std::atomic<std::thread::id> served_by;

 private:
  os::Fd arrived_;
};

class SilentListener final : public rdma::EngineListener {
 public:
  void on_completion_event(rdma::CompletionQueue&) override {}
  void on_async_event(ibv_event_type, rdma::QueuePair*, rdma::CompletionQueue*,
                      rdma::SharedReceiveQueue*) override {}
};

class ProgressTest : public testing::Test {
 protected:
  ProgressTest() {
    const auto file = os::create_shared_memory("progress-test", sizeof(rdma::Window));
    mapping_ = std::move(*os::Mapping::create(*file, sizeof(rdma::Window)));
    doorbell_ = std::move(*os::create_event_fd());
    // SAFETY: zeroed memory of the size of a window.
    window_ = reinterpret_cast<rdma::Window*>(mapping_->data());
    engine_ = std::make_unique<rdma::Engine>(rdma::EngineOptions{.window = window_,
                                                                 .doorbell_fd = doorbell_.get(),
                                                                 .function = 1,
                                                                 .random = &os::random_u64,
                                                                 .now_ns = &os::now_ns},
                                             port_, listener_);
    progress_ = std::move(*Progress::create(
        lock_, *engine_, {.port_fd = port_.fd(), .doorbell_fd = doorbell_.get()}));
  }

  ~ProgressTest() override { progress_.reset(); }

  Progress::Mode mode() {
    const std::scoped_lock guard{lock_};
    return progress_->mode();
  }

  void poll(std::uint32_t times) {
    for (std::uint32_t i = 0; i < times; ++i) {
      const std::scoped_lock guard{lock_};
      progress_->note_poll();
    }
  }

  static bool eventually(const std::function<bool()>& condition) {
    const std::uint64_t give_up_ns = os::now_ns() + kPatienceNs;
    while (!condition()) {
      if (os::now_ns() > give_up_ns) return false;
      std::this_thread::yield();
    }
    return true;
  }

  bool becomes(Progress::Mode wanted) {
    return eventually([&] { return mode() == wanted; });
  }

  ContextLock lock_;
  NotingPort port_;
  SilentListener listener_;
  os::Fd doorbell_;
  std::unique_ptr<os::Mapping> mapping_;
  rdma::Window* window_ = nullptr;
  std::unique_ptr<rdma::Engine> engine_;
  std::unique_ptr<Progress> progress_;
};

TEST_F(ProgressTest, TheHelperServesAProgramThatDoesNotPoll) {
  ASSERT_TRUE(becomes(Progress::Mode::kServing));
  port_.arrive();
  EXPECT_TRUE(eventually([&] { return port_.served > 0; }));
  EXPECT_NE(port_.served_by.load(), std::this_thread::get_id());
  // Expect: it says that it sleeps, so that neighbours ring.
  EXPECT_TRUE(eventually([&] { return window_->header.sleeping != 0; }));
}

TEST_F(ProgressTest, AFewPollsLeaveTheHelperInPlace) {
  ASSERT_TRUE(becomes(Progress::Mode::kServing));
  ASSERT_TRUE(eventually([&] { return window_->header.sleeping != 0; }));
  poll(Progress::kPollsToTakeBack - 1);
  EXPECT_EQ(mode(), Progress::Mode::kServing);
}

TEST_F(ProgressTest, ManyPollsTakeTheWorkBackAndAPauseGivesItAway) {
  ASSERT_TRUE(becomes(Progress::Mode::kServing));
  ASSERT_TRUE(eventually([&] { return window_->header.sleeping != 0; }));
  poll(Progress::kPollsToTakeBack);
  EXPECT_EQ(mode(), Progress::Mode::kWatching);
  // Expect: nobody sleeps on the doorbell any more.
  EXPECT_TRUE(eventually([&] {
    poll(1);
    return window_->header.sleeping == 0;
  }));
  EXPECT_TRUE(becomes(Progress::Mode::kServing));
}

TEST_F(ProgressTest, AnArmedNotificationPutsTheHelperInPlaceAtOnce) {
  ASSERT_TRUE(becomes(Progress::Mode::kServing));
  poll(2 * Progress::kPollsToTakeBack);
  {
    const std::scoped_lock guard{lock_};
    progress_->note_armed();
    EXPECT_EQ(progress_->mode(), Progress::Mode::kServing);
  }
}

TEST_F(ProgressTest, ABlockedThreadServesItself) {
  std::atomic<bool> done = false;
  std::thread blocked{[&] {
    const os::Fd own = std::move(*os::create_event_fd());
    std::uint32_t awake = 0;
    std::unique_lock guard{lock_};
    progress_->wait_until(guard, own.get(), awake, [&] { return port_.served > 0; });
    EXPECT_EQ(awake, 0u);
    done = true;
  }};
  // Expect: when all is quiet the helper rests, without looking again and again.
  EXPECT_TRUE(becomes(Progress::Mode::kResting));
  EXPECT_NE(window_->header.sleeping, 0u);
  const auto id = blocked.get_id();
  port_.arrive();
  blocked.join();
  EXPECT_TRUE(done);
  EXPECT_EQ(port_.served_by.load(), id);
  // Expect: the thread is gone, so the helper takes over.
  EXPECT_TRUE(becomes(Progress::Mode::kServing));
}

TEST_F(ProgressTest, ADoorbellWakesWhoeverServes) {
  ASSERT_TRUE(becomes(Progress::Mode::kServing));
  ASSERT_TRUE(eventually([&] { return window_->header.sleeping != 0; }));
  // As a neighbour does.
  window_->header.activity[0] = 1;
  window_->header.activity_summary = 1;
  os::signal(doorbell_.get());
  EXPECT_TRUE(eventually([&] { return window_->header.activity_summary == 0; }));
}

}  // namespace
}  // namespace isthmus::verbs
