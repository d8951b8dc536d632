// Whatever a peer packs: the unpacker reads no byte outside, and what it accepts packs back to the
// same bytes and applies within a page.
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "memory/line_pack.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace isthmus::memory;
  constexpr std::uint64_t kPages = 1 << 20;
  const std::span bytes = std::as_bytes(std::span{data, size});
  std::vector<std::byte> again(size);
  LinePacker packer{again};
  LineUnpacker unpacker{bytes, kPages};
  while (true) {
    const auto found = unpacker.next();
    if (!found || !*found) break;
    std::array<std::byte, kPageBytes> page{};
    apply_lines(**found, page);
    if ((*found)->page >= kPages || !packer.add((*found)->page, (*found)->lines, page)) {
      std::abort();
    }
  }
  if (!std::ranges::equal(packer.packed(), bytes.first(packer.packed().size()))) std::abort();
  return 0;
}
