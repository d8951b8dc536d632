// CallShape: what the arguments of a system call point to, as far as its size is not that of some
// small struct: buffers, texts, vectors, messages.
//
// Threading: any thread.
// Spec: Linux man-pages, section 2; x86-64 and others alike.
#pragma once

#include <array>
#include <cstdint>

namespace isthmus::preload {

enum class PointsTo : std::uint8_t {
  kNothing,   // Of its own: a number, or a struct of at most kMostStructBytes.
  kBytes,     // As many as the argument `count` says, times `unit`.
  kText,      // To its zero.
  kStrings,   // Pointers to texts, to a null pointer.
  kVectors,   // `count` iovecs, each with its bytes.
  kMessage,   // A msghdr, with its name, vectors and control bytes.
  kMessages,  // `count` mmsghdrs.
};

enum class KernelAccess : std::uint8_t { kReads, kWrites };

struct PointerShape {
  PointsTo to = PointsTo::kNothing;
  KernelAccess access = KernelAccess::kReads;
  std::uint8_t argument = 0;
  std::uint8_t count = 0;
  std::uint8_t unit = 1;
};

constexpr std::uint64_t kMostStructBytes = 512;  // statx has 256, utsname 390.

struct CallShape {
  std::array<PointerShape, 3> pointers{};
  // Arguments 1 and 2 are a buffer or vectors of which any part may be moved, at the offset in the
  // file, if there is one, in argument `offset`: what is too long at once is moved in parts.
  bool is_divisible = false;
  std::uint8_t offset = 0;
};

CallShape shape_of(long number);

}  // namespace isthmus::preload
