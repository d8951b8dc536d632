// Fd: a file descriptor with one owner. The one resource that moves, because it is a number.
#pragma once

#include <utility>

#include "base/result.h"

namespace isthmus::os {

class Fd {
 public:
  Fd() = default;
  explicit Fd(int number) : number_(number) {}
  Fd(Fd&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      number_ = std::exchange(other.number_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  int get() const { return number_; }
  bool valid() const { return number_ >= 0; }
  explicit operator bool() const { return valid(); }
  // Gives up ownership without closing.
  [[nodiscard]] int release() { return std::exchange(number_, -1); }
  void reset();

  // A second descriptor of the same open file, close-on-exec.
  Result<Fd> duplicate() const;

  // A second descriptor that programs started from this one inherit, out of the way of the small
  // numbers that they expect to be free.
  Result<Fd> duplicate_for_children() const;

 private:
  int number_ = -1;
};

}  // namespace isthmus::os
