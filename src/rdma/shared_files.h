// SharedFiles: memory files in which a neighbour has registered memory, mapped here.
//
// What was registered by ibv_reg_dmabuf_mr lies in a memory file, of which the key in the
// neighbour's window says descriptor and offset. It is opened by way of /proc, which asks for the
// same right as reaching the neighbour's memory does, and stays mapped; a request then is a memcpy
// without a system call. A file that could shrink is not mapped: its owner could make us fault.
//
// Cost: 20 ns a look-up; the first of a key 10 µs.
//
// Threading: shard-confined, under the engine's lock.
// Input: keys of the neighbour's window.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "os/shared_memory.h"
#include "rdma/key_table.h"

namespace isthmus::rdma {

class SharedFiles {
 public:
  explicit SharedFiles(std::int32_t process_id) : process_id_(process_id) {}

  // Where the bytes of a checked key are, here; null: nowhere, the kernel has to move them.
  std::byte* find(std::uint32_t key, const KeyValues& values, std::uint64_t length);

 private:
  struct File {
    os::FileIdentity identity;
    std::unique_ptr<os::Mapping> mapping;
  };
  struct Known {
    std::uint32_t key = 0;
    std::uint32_t changes = 0;  // Of the key's slot: another number, another file.
    os::Mapping* mapping = nullptr;
  };

  os::Mapping* map(std::uint32_t descriptor);

  std::int32_t process_id_;
  std::vector<File> files_;
  std::unordered_map<std::uint32_t, Known> known_;  // By index of the key.
};

// Copies so that whoever polls the last byte of `to` finds all others there.
void copy_last_byte_last(std::byte* to, std::span<const iovec> from);
void copy_out(std::span<const iovec> to, const std::byte* from);

}  // namespace isthmus::rdma
