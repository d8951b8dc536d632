// Memory files (memfd) shared between processes, and their mappings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "os/fd.h"
#include "os/file_identity.h"

namespace isthmus::os {

// A zeroed memory file. Its size is sealed: nobody who holds it can shrink it under a mapping of
// another process, which would turn that one's next access into SIGBUS.
Result<Fd> create_shared_memory(const char* name, std::size_t bytes);

// For a memory file that came from outside: it has exactly `bytes` and cannot shrink any more.
Result<void> check_shared_memory(const Fd& file, std::size_t bytes);

// Whether both are the same memory file.
bool same_shared_memory(const Fd& first, const Fd& second);

Result<std::size_t> file_bytes(const Fd& file);

struct MemoryFile {
  Fd file;
  FileIdentity identity;
  std::size_t bytes = 0;
};
// A memory file that another process has open under this number. kDenied: we may not reach that
// process. kInvalid: another kind of file, or one that could shrink.
Result<MemoryFile> open_memory_file_of(std::int32_t process_id, int descriptor);

// Punches a hole: the bytes read as zero again and take no memory.
Result<void> discard_shared_memory(const Fd& file, std::size_t bytes);

// A shared, readable and writable mapping of a file, which may be closed then.
class Mapping {
 public:
  static Result<std::unique_ptr<Mapping>> create(const Fd& file, std::size_t bytes,
                                                 std::size_t offset = 0);  // Of whole pages.
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
