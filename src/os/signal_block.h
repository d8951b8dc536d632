// SignalBlock: all signals of this thread wait while one of these lives. What it takes a lock for
// is then not interrupted by a handler that wants the same lock.
#pragma once

#include <csignal>

namespace isthmus::os {

class SignalBlock {
 public:
  SignalBlock();
  ~SignalBlock();
  SignalBlock(const SignalBlock&) = delete;
  SignalBlock& operator=(const SignalBlock&) = delete;

 private:
  sigset_t before_;
};

}  // namespace isthmus::os
