// Goal: another process sees a pager's numbers and pages, and the last numbers after its end.
// Method: a view of this very process, and of a child that has the file but is not its process.
#include "farmem/view.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "farmem/fault_signal.h"
#include "farmem/model_store.h"
#include "os/process.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint64_t kBytes = 16u << 20;

class ViewTest : public testing::Test {
 protected:
  void SetUp() override {
    store_ = std::move(*ModelStore::create({.slot_count = kBytes / os::kPageBytes}));
    auto pager =
        Pager::create(*store_, {.region_bytes = kBytes, .local_bytes = kLeastLocalBytes});
    if (!pager && pager.error().code == ErrorCode::kDenied) GTEST_SKIP() << pager.error().message;
    ASSERT_TRUE(pager) << pager.error().message;
    pager_ = std::move(*pager);
    signal_ = std::move(*FaultSignal::start(*pager_));
    publisher_ = std::move(*ViewPublisher::create(*pager_));
  }

  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<Pager> pager_;
  std::unique_ptr<FaultSignal> signal_;
  std::unique_ptr<ViewPublisher> publisher_;
};

TEST_F(ViewTest, ShowsNumbersAndPages) {
  auto* words = reinterpret_cast<volatile std::uint64_t*>(pager_->region().start);
  words[0] = 1;
  words[512 * 7] = 1;
  auto view = View::open(os::process_id());
  ASSERT_TRUE(view) << view.error().message;
  const auto stats = (*view)->stats();
  ASSERT_TRUE(stats) << stats.error().message;
  EXPECT_EQ(stats->faults_first, 2u);
  EXPECT_EQ(stats->pages_local, 2u);
  const auto states = (*view)->states();
  ASSERT_TRUE(states) << states.error().message;
  ASSERT_EQ(states->size(), kBytes / os::kPageBytes);
  EXPECT_EQ((*states)[0], PageState::kDirty);
  EXPECT_EQ((*states)[1], PageState::kEmpty);
  EXPECT_EQ((*states)[7], PageState::kDirty);
}

TEST_F(ViewTest, KeepsTheLastNumbers) {
  auto view = View::open(os::process_id());
  ASSERT_TRUE(view) << view.error().message;
  *reinterpret_cast<volatile std::uint64_t*>(pager_->region().start) = 1;
  publisher_->write_last();
  *reinterpret_cast<volatile std::uint64_t*>(pager_->region().start + 8192) = 1;
  EXPECT_EQ((*view)->stats()->faults_first, 1u);
}

TEST_F(ViewTest, AChildIsNotItsParent) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    char byte;
    static_cast<void>(!read(ready[0], &byte, 1));
    _exit(0);
  }
  const auto view = View::open(child);
  EXPECT_FALSE(view);
  EXPECT_EQ(view.error().code, ErrorCode::kNotFound);
  static_cast<void>(!write(ready[1], "x", 1));
  waitpid(child, nullptr, 0);
  close(ready[0]);
  close(ready[1]);
}

TEST_F(ViewTest, AChildsEndIsNotItsParents) {
  const pid_t child = fork();
  if (child == 0) {
    publisher_->write_last();
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  auto view = View::open(os::process_id());
  ASSERT_TRUE(view) << view.error().message;
  *reinterpret_cast<volatile std::uint64_t*>(pager_->region().start) = 1;
  EXPECT_EQ((*view)->stats()->faults_first, 1u);
}

TEST_F(ViewTest, RefusesWhoIsNotThere) {
  EXPECT_EQ(View::open(0x3fff'ffff).error().code, ErrorCode::kNotFound);
}

}  // namespace
}  // namespace isthmus::farmem
