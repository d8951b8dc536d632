// Goal: what is opened while low numbers are taken gets a higher one; afterwards all are as before.
// Method: the list of open descriptors before, meanwhile and after.
#include "os/low_descriptors.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "os/event_fd.h"
#include "os/fd.h"

namespace isthmus::os {
namespace {

TEST(LowDescriptors, KeepsNewOnesHigh) {
  const std::vector<int> before = open_descriptors();
  Fd high;
  {
    const LowDescriptors low;
    auto opened = create_event_fd();
    ASSERT_TRUE(opened) << opened.error().message;
    high = std::move(*opened);
    EXPECT_GE(open_descriptors().size(), static_cast<std::size_t>(kLowDescriptors));
  }
  EXPECT_GE(high.get(), kLowDescriptors);

  std::vector<int> expected = before;
  expected.push_back(high.get());
  EXPECT_EQ(open_descriptors(), expected);

  // Low numbers are free again.
  const auto low = create_event_fd();
  ASSERT_TRUE(low);
  EXPECT_LT(low->get(), kLowDescriptors);

  // One that was opened low. Expect: the same event counter, high; the low number is free.
  auto moved = create_event_fd();
  ASSERT_TRUE(moved);
  const int number = moved->release();
  const Fd raised{moved_high(number)};
  EXPECT_GE(raised.get(), kLowDescriptors);
  EXPECT_FALSE(std::ranges::binary_search(open_descriptors(), number));
  signal(raised.get());
  EXPECT_EQ(moved_high(raised.get()), raised.get());
}

}  // namespace
}  // namespace isthmus::os
