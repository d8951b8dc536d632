#include "rdma/shared_files.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "os/process_memory.h"

namespace isthmus::rdma {
namespace {

// A neighbour that registers more than these gets its requests through the kernel.
constexpr std::size_t kMostFiles = 256;

}  // namespace

std::byte* SharedFiles::find(std::uint32_t key, const KeyValues& values, std::uint64_t length) {
  if (values.shared_file == 0) return nullptr;
  Known& known = known_[key >> 16];
  if (known.key != key || known.changes != values.changes) {
    known = {key, values.changes, map(values.shared_file - 1)};
  }
  if (known.mapping == nullptr) return nullptr;
  const std::uint64_t bytes = known.mapping->size();
  if (values.shared_offset > bytes || length > bytes - values.shared_offset) return nullptr;
  return known.mapping->data() + values.shared_offset;
}

os::Mapping* SharedFiles::map(std::uint32_t descriptor) {
  const auto opened = os::open_memory_file_of(process_id_, static_cast<int>(descriptor));
  if (!opened) return nullptr;
  const auto same = std::ranges::find(files_, opened->identity, &File::identity);
  if (same != files_.end()) return same->mapping.get();
  if (files_.size() == kMostFiles) return nullptr;
  auto mapping = os::Mapping::create(opened->file, opened->bytes);
  if (!mapping) return nullptr;
  files_.push_back({opened->identity, std::move(*mapping)});
  return files_.back().mapping.get();
}

void copy_last_byte_last(std::byte* to, std::span<const iovec> from) {
  for (std::size_t index = 0; index < from.size(); ++index) {
    const std::size_t bytes = from[index].iov_len;
    const bool last = index + 1 == from.size();
    if (bytes == 0) continue;
    const auto* source = static_cast<const std::byte*>(from[index].iov_base);
    std::memcpy(to, source, last ? bytes - 1 : bytes);
    to += bytes;
    if (!last) continue;
    // Release: all before it. Partner: the program that polls.
    std::atomic_ref(to[-1]).store(source[bytes - 1], std::memory_order_release);
  }
}

void copy_out(std::span<const iovec> to, const std::byte* from) {
  for (const iovec& piece : to) {
    std::memcpy(piece.iov_base, from, piece.iov_len);
    from += piece.iov_len;
  }
}

}  // namespace isthmus::rdma
