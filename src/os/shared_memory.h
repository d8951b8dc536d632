// Memory files (memfd) shared between processes, and their mappings.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

// A zeroed memory file. Its size is sealed: nobody who holds it can shrink it under a mapping of
// another process, which would turn that one's next access into SIGBUS.
Result<Fd> create_shared_memory(const char* name, std::size_t bytes);

// For a memory file that came from outside: it has exactly `bytes` and cannot shrink any more.
Result<void> check_shared_memory(const Fd& file, std::size_t bytes);

// Whether both are the same memory file.
bool same_shared_memory(const Fd& first, const Fd& second);

// Punches a hole: the bytes read as zero again and take no memory.
Result<void> discard_shared_memory(const Fd& file, std::size_t bytes);

// A shared, readable and writable mapping from the start of a file. The file may be closed.
class Mapping {
 public:
  static Result<std::unique_ptr<Mapping>> create(const Fd& file, std::size_t bytes);
  ~Mapping();
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::byte* data() const { return data_; }
  std::size_t size() const { return bytes_; }
  std::span<std::byte> bytes() const { return {data_, bytes_}; }

 private:
  Mapping(std::byte* data, std::size_t bytes) : data_(data), bytes_(bytes) {}

  std::byte* data_;
  std::size_t bytes_;
};

}  // namespace isthmus::os
