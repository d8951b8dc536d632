// Goal: numbers are never given twice while anything may still name them, and every table ends.
// Method: small tables, filled, emptied and aged by hand.
#include "cm/exchange_table.h"

#include <gtest/gtest.h>

#include <deque>

#include "cm/testing.h"

namespace isthmus::cm {
namespace {

class ExchangeTableTest : public testing::Test {
 protected:
  std::uint64_t draw() {
    const std::uint64_t next = script.front();
    if (script.size() > 1) script.pop_front();
    return next;
  }
  Exchange& passive(std::uint32_t remote_id, std::uint32_t qpn) {
    Exchange* made = table.create();
    made->role = Role::kPassive;
    made->remote = ip("10.0.0.2");
    made->remote_id = remote_id;
    made->values.remote_qpn = qpn;
    table.index_request(*made);
    EXPECT_FALSE(table.index_queue_pair(*made));
    return *made;
  }
  std::deque<std::uint64_t> script = {1, 2, 3, 4, 5, 6, 7, 8};
  ExchangeTable table{{.max_exchanges = 3, .max_timewait = 2}, [this] { return draw(); }};
};

TEST_F(ExchangeTableTest, IdsAreNeverZeroAndNeverTaken) {
  script = {0, 5, 5, 0, 6, 7};
  EXPECT_EQ(table.create()->id, ExchangeId{5});
  Exchange* second = table.create();
  EXPECT_EQ(second->id, ExchangeId{6});
  table.retire(*second, kSecond);
  script = {6, 5, 9};
  EXPECT_EQ(table.create()->id, ExchangeId{9});  // 6 rests, 5 lives.
  script = {5};
  EXPECT_EQ(table.create(), nullptr);  // A generator that is broken is no endless loop.
  EXPECT_EQ(table.create_with(ExchangeId{6}), nullptr);
  EXPECT_EQ(table.create_with(ExchangeId::kNone), nullptr);
}

TEST_F(ExchangeTableTest, IsBounded) {
  for (int i = 0; i < 3; ++i) EXPECT_NE(table.create(), nullptr);
  EXPECT_EQ(table.create(), nullptr);
  EXPECT_EQ(table.create_with(ExchangeId{77}), nullptr);
}

TEST_F(ExchangeTableTest, NamesLastThroughTimewait) {
  Exchange& first = passive(100, 7);
  EXPECT_EQ(table.find_request(ip("10.0.0.2"), 100), &first);
  EXPECT_EQ(table.find_request(ip("10.0.0.3"), 100), nullptr);
  EXPECT_EQ(table.find_queue_pair(ip("10.0.0.2"), 7), &first);
  const ExchangeId id = first.id;
  table.retire(first, kSecond);
  EXPECT_EQ(table.find_request(ip("10.0.0.2"), 100), nullptr);
  ASSERT_NE(table.find_timewait_request(ip("10.0.0.2"), 100), nullptr);
  // The queue pair may be used again, the id may not.
  Exchange& other = passive(101, 7);
  EXPECT_FALSE(table.take_ended_timewait(kSecond - 1));
  EXPECT_EQ(table.take_ended_timewait(kSecond)->id, id);
  EXPECT_EQ(table.find_timewait_request(ip("10.0.0.2"), 100), nullptr);
  EXPECT_EQ(table.find_queue_pair(ip("10.0.0.2"), 7), &other);
  Exchange* third = table.create();
  third->remote = ip("10.0.0.2");
  third->values.remote_qpn = 7;
  EXPECT_EQ(table.index_queue_pair(*third), other.id);
}

TEST_F(ExchangeTableTest, QueuePairZeroIsNobodys) {
  passive(100, 0);
  passive(101, 0);  // Neither is stale: a program that names no queue pair has none.
  EXPECT_EQ(table.find_queue_pair(ip("10.0.0.2"), 0), nullptr);
}

TEST_F(ExchangeTableTest, TheOldestRestsShortestWhenRoomIsShort) {
  for (std::uint32_t i = 0; i < 3; ++i) table.retire(passive(100 + i, 10 + i), kSecond + i);
  EXPECT_EQ(table.timewait_size(), 2u);
  EXPECT_EQ(table.find_timewait_request(ip("10.0.0.2"), 100), nullptr);
  EXPECT_NE(table.find_timewait_request(ip("10.0.0.2"), 102), nullptr);
}

TEST_F(ExchangeTableTest, DeadlinesComeInOrder) {
  Exchange* late = table.create();
  Exchange* early = table.create();
  table.set_deadline(*late, 20);
  table.set_deadline(*early, 30);
  table.set_deadline(*early, 10);
  EXPECT_EQ(table.next_deadline(), 10u);
  EXPECT_EQ(table.take_expired(9), nullptr);
  EXPECT_EQ(table.take_expired(25), early);
  EXPECT_EQ(table.take_expired(25), late);
  EXPECT_EQ(table.take_expired(25), nullptr);
  table.set_deadline(*late, 40);
  table.erase(*late);
  EXPECT_FALSE(table.next_deadline());
}

}  // namespace
}  // namespace isthmus::cm
