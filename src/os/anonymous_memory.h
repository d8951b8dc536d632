// AnonymousMemory: zeroed memory straight from the kernel, for tables that must lie neither
// in the program's heap, which may be far, nor in its core dumps. A page is taken at first touch.
// The memory is private unless it was made to be shared with children.
#pragma once

#include <cstddef>
#include <memory>

#include "base/result.h"

namespace isthmus::os {

class AnonymousMemory {
 public:
  // kNoMemory: the address space or the overcommit limit has no room. 0 bytes are valid.
  static Result<std::unique_ptr<AnonymousMemory>> create(std::size_t bytes);
  // A child of fork() has the same memory instead of a copy.
  static Result<std::unique_ptr<AnonymousMemory>> create_shared(std::size_t bytes);
  ~AnonymousMemory();
  AnonymousMemory(const AnonymousMemory&) = delete;
  AnonymousMemory& operator=(const AnonymousMemory&) = delete;

  // For memory that others reach through the kernel: fewer, larger pages are found faster. Only a
  // wish.
  void prefer_large_pages() const;

  // Whole pages of shared memory are zeros again, in all processes, and take no room.
  void discard_shared(std::size_t first, std::size_t bytes) const;

  std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }

 private:
  AnonymousMemory(std::byte* data, std::size_t bytes) : data_(data), bytes_(bytes) {}

  std::byte* data_;
  std::size_t bytes_;
};

}  // namespace isthmus::os
