// Goal: what leaves cannot be read, and what comes back is what left, or is refused.
// Method: a model of a store below, whose slots are looked at, altered, exchanged and put back.
#include "farmem/encrypt/encrypted_store.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "farmem/model_store.h"
#include "os/address_range.h"

namespace isthmus::farmem {
namespace {

class EncryptedStoreTest : public testing::Test {
 protected:
  void SetUp() override {
    auto model = std::move(*ModelStore::create({.slot_count = 64, .slots_of_slab = 64}));
    model_ = model.get();
    store_ = std::move(*EncryptedStore::create(std::move(model)));
    channel_ = std::move(*store_->open_channel(16));
  }

  std::byte* frame(std::size_t index) { return channel_->staging().data() + index * 4096; }
  StoreVerdict wait(std::uint64_t ticket) {
    StoreCompletion completion{};
    while (channel_->poll({&completion, 1}) == 0) {
    }
    EXPECT_EQ(completion.ticket, ticket);
    return completion.verdict;
  }
  void put(std::uint32_t slot, std::uint32_t count, int seed) {
    for (std::size_t index = 0; index < count * 4096; ++index) {
      frame(0)[index] = static_cast<std::byte>(index / 7 + static_cast<std::size_t>(seed));
    }
    channel_->write({slot, count}, frame(0), 5);
    ASSERT_EQ(wait(5), StoreVerdict::kDone);
  }
  StoreVerdict get(std::uint32_t slot, std::uint32_t count) {
    std::memset(frame(8), 0, count * 4096);
    channel_->read({slot, count}, frame(8), 6);
    return wait(6);
  }

  ModelStore* model_;
  std::unique_ptr<EncryptedStore> store_;
  std::unique_ptr<StoreChannel> channel_;
};

TEST_F(EncryptedStoreTest, GivesBackWhatWasPut) {
  put(3, 4, 1);
  ASSERT_EQ(get(3, 4), StoreVerdict::kDone);
  EXPECT_EQ(std::memcmp(frame(0), frame(8), 4 * 4096), 0);
  // Some of it alone.
  ASSERT_EQ(get(4, 1), StoreVerdict::kDone);
  EXPECT_EQ(std::memcmp(frame(1), frame(8), 4096), 0);
}

TEST_F(EncryptedStoreTest, ShowsNothingBelow) {
  put(0, 2, 1);
  EXPECT_NE(std::memcmp(frame(0), model_->slot(0), 4096), 0);
  // The same page twice looks different.
  std::vector<std::byte> first(model_->slot(0), model_->slot(0) + 4096);
  put(0, 1, 1);
  EXPECT_NE(std::memcmp(first.data(), model_->slot(0), 4096), 0);
  // Ciphertext looks like noise: all byte values occur, none much more often than others.
  std::array<int, 256> seen{};
  for (std::size_t index = 0; index < 4096; ++index) {
    ++seen[static_cast<std::uint8_t>(model_->slot(0)[index])];
  }
  EXPECT_GT(*std::ranges::min_element(seen), 0);
  EXPECT_LT(*std::ranges::max_element(seen), 60);
}

TEST_F(EncryptedStoreTest, NoticesOneBit) {
  put(7, 2, 1);
  model_->slot(8)[4095] ^= std::byte{1};
  EXPECT_EQ(get(7, 2), StoreVerdict::kLost);
  EXPECT_EQ(get(7, 1), StoreVerdict::kDone);
}

TEST_F(EncryptedStoreTest, NoticesPagesExchanged) {
  put(0, 2, 1);
  std::swap_ranges(model_->slot(0), model_->slot(0) + 4096, model_->slot(1));
  EXPECT_EQ(get(0, 1), StoreVerdict::kLost);
  EXPECT_EQ(get(1, 1), StoreVerdict::kLost);
}

TEST_F(EncryptedStoreTest, NoticesAnOlderPage) {
  put(0, 1, 1);
  std::vector<std::byte> older(model_->slot(0), model_->slot(0) + 4096);
  put(0, 1, 2);
  std::ranges::copy(older, model_->slot(0));
  EXPECT_EQ(get(0, 1), StoreVerdict::kLost);
}

TEST_F(EncryptedStoreTest, AChildOpensWhatItsParentSealedAndUsesOtherNonces) {
  put(0, 2, 1);
  const auto joined = std::move(*store_->join_in_child());
  const auto theirs = std::move(*joined->open_channel(4));
  const auto finish = [&] {
    StoreCompletion completion{};
    while (theirs->poll({&completion, 1}) == 0) {
    }
    return completion.verdict;
  };
  theirs->read({0, 1}, theirs->staging().data(), 1);
  ASSERT_EQ(finish(), StoreVerdict::kDone);
  EXPECT_EQ(std::memcmp(theirs->staging().data(), frame(0), 4096), 0);

  // Under one nonce, one page looks the same both times. Expect: never, whoever is how far.
  std::vector<std::vector<std::byte>> seen;
  const auto note = [&] { seen.emplace_back(model_->slot(5), model_->slot(5) + 4096); };
  for (int turn = 0; turn < 4; ++turn) {
    put(5, 1, 3);
    note();
    std::memcpy(theirs->staging().data(), frame(0), 4096);
    theirs->write({5, 1}, theirs->staging().data(), 2);
    ASSERT_EQ(finish(), StoreVerdict::kDone);
    note();
  }
  std::ranges::sort(seen);
  EXPECT_EQ(std::ranges::adjacent_find(seen), seen.end());
}

TEST_F(EncryptedStoreTest, NeverSealedIsLost) { EXPECT_EQ(get(9, 1), StoreVerdict::kLost); }

}  // namespace
}  // namespace isthmus::farmem
