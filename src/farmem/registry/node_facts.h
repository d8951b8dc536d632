// What a memory node says of itself.
#pragma once

#include <cstdint>
#include <string>

namespace isthmus::farmem {

struct MemoryNodeFacts {
  std::string address;  // Where programs find it.
  std::uint16_t port = 0;
  std::uint64_t bytes = 0;
  std::uint64_t free_bytes = 0;
  bool draining = false;
};

}  // namespace isthmus::farmem
