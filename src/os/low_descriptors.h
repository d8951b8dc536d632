// LowDescriptors: while one lives, the low descriptor numbers are taken. What a library opens then
// gets numbers that the program around it does not use: shells and servers open, close and replace
// low numbers as they like.
#pragma once

#include <bitset>
#include <vector>

namespace isthmus::os {

constexpr int kLowDescriptors = 512;

class LowDescriptors {
 public:
  // Takes fewer where the process may not have so many; allocates nothing.
  LowDescriptors();
  ~LowDescriptors();
  LowDescriptors(const LowDescriptors&) = delete;
  LowDescriptors& operator=(const LowDescriptors&) = delete;

 private:
  std::bitset<kLowDescriptors> taken_;
};

// The same open file under a number past the low ones, in place of this one; itself where that is
// not allowed. Closed by exec.
int moved_high(int descriptor);

// A second number of the same open file, past the low ones, closed by exec; -1: it is not open.
int duplicate_high(int descriptor);

// All that are open in this process, in order.
std::vector<int> open_descriptors();

}  // namespace isthmus::os
