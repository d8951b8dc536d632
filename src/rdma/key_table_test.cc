// Goal: whoever checks a key while its owner changes it sees the old values or the new, never some
// of each.
// Method: one thread changes a key between two sets of values, another checks it all the time.
#include "rdma/key_table.h"

#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <memory>
#include <thread>

namespace isthmus::rdma {
namespace {

constexpr KeyValues kShort{.pd = 7,
                           .access = IBV_ACCESS_REMOTE_READ,
                           .iova = 0x1000,
                           .length = 64,
                           .host_address = 0x10'1000};
constexpr KeyValues kLong{.pd = 7,
                          .access = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE,
                          .iova = 0,
                          .length = 0x2000,
                          .host_address = 0x20'0000};

bool is_view_of(const KeyValues& seen, const KeyValues& meant, std::uint64_t address) {
  return seen.access == meant.access && seen.iova == meant.iova && seen.length == meant.length &&
         seen.host_address == meant.host_address + (address - meant.iova);
}

TEST(KeyTable, ShowsNoMixtureOfTwoValues) {
  constexpr int kChanges = 1'000'000;
  const auto slots = std::make_unique<std::array<KeySlot, kMaxKeys>>();
  KeyTable table{*slots, [] { return 0x1234'5678u; }};
  const std::uint32_t key = table.add(kShort).value();
  std::atomic<bool> is_over = false;
  std::jthread owner([&] {
    for (int i = 0; i < kChanges; ++i) table.replace(key, i % 2 ? kShort : kLong);
    is_over = true;
  });

  const KeyRequest request{.key = key, .pd = 7, .address = 0x1000, .length = 1};
  int mixtures = 0;
  while (!is_over) {
    KeyValues seen;
    if (!check_key((*slots)[key >> 16], request, seen)) continue;  // Changing now.
    mixtures += !is_view_of(seen, kShort, 0x1000) && !is_view_of(seen, kLong, 0x1000);
  }
  owner.join();

  // Expect: none, and the last change is what the key stands for.
  EXPECT_EQ(mixtures, 0);
  KeyValues last;
  ASSERT_TRUE(table.check(request, last));
  EXPECT_TRUE(is_view_of(last, kShort, 0x1000));
}

}  // namespace
}  // namespace isthmus::rdma
