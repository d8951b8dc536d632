// Goal: what a system call's arguments point to is known, above all where much data moves.
// Method: the shapes of calls against their manual pages.
#include "preload/call_shapes.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

namespace isthmus::preload {
namespace {

TEST(CallShapes, Buffers) {
  const CallShape read = shape_of(SYS_pread64);
  EXPECT_EQ(read.pointers[0].to, PointsTo::kBytes);
  EXPECT_EQ(read.pointers[0].access, KernelAccess::kWrites);
  EXPECT_EQ(read.pointers[0].argument, 1);
  EXPECT_EQ(read.pointers[0].count, 2);
  EXPECT_TRUE(read.is_divisible);
  EXPECT_EQ(read.offset, 3);
  EXPECT_EQ(shape_of(SYS_write).pointers[0].access, KernelAccess::kReads);
  EXPECT_EQ(shape_of(SYS_writev).pointers[0].to, PointsTo::kVectors);
  // A message must stay whole.
  EXPECT_FALSE(shape_of(SYS_sendto).is_divisible);
  EXPECT_FALSE(shape_of(SYS_recvmsg).is_divisible);
}

TEST(CallShapes, TextsAndBuffersOfOneCall) {
  const CallShape shape = shape_of(SYS_readlinkat);
  EXPECT_EQ(shape.pointers[0].to, PointsTo::kText);
  EXPECT_EQ(shape.pointers[0].argument, 1);
  EXPECT_EQ(shape.pointers[1].to, PointsTo::kBytes);
  EXPECT_EQ(shape.pointers[1].argument, 2);
  EXPECT_EQ(shape.pointers[1].count, 3);
  EXPECT_EQ(shape_of(SYS_execve).pointers[2].to, PointsTo::kStrings);
}

TEST(CallShapes, CountsAreOfElements) {
  EXPECT_EQ(shape_of(SYS_ppoll).pointers[0].unit, 8);
  EXPECT_EQ(shape_of(SYS_epoll_pwait).pointers[0].unit, 12);
  EXPECT_EQ(shape_of(SYS_getgroups).pointers[0].count, 0);
}

TEST(CallShapes, OthersHaveNone) {
  for (const long number : {static_cast<long>(SYS_getpid), static_cast<long>(SYS_futex), -1L,
                            1L << 40}) {
    for (const PointerShape& pointer : shape_of(number).pointers) {
      EXPECT_EQ(pointer.to, PointsTo::kNothing);
    }
    EXPECT_FALSE(shape_of(number).is_divisible);
  }
}

}  // namespace
}  // namespace isthmus::preload
