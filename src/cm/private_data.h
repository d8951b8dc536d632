// What we write into private data ourselves, for the person at the other end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace isthmus::cm {

// At most 148 bytes, the private data of a REJ.
inline std::string denial_text(const std::string& rule) {
  static constexpr std::size_t kBytes = 148;
  std::string text = "isthmus: denied by policy, rule \"" + rule + "\"";
  if (text.size() > kBytes) text.resize(kBytes);
  return text;
}

// Private data has no length on the wire: programs get the whole field, as rdma_cm gives it.
inline std::vector<std::byte> padded(std::span<const std::byte> bytes, std::size_t field_bytes) {
  std::vector<std::byte> field(bytes.begin(), bytes.end());
  field.resize(field_bytes);
  return field;
}

}  // namespace isthmus::cm
