// Where a memory node is, as people write it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace isthmus::farmem {

constexpr std::uint16_t kNodePort = 7471;

struct NodeAddress {
  std::string host;
  std::uint16_t port = kNodePort;

  std::string text() const;
  friend bool operator==(const NodeAddress&, const NodeAddress&) = default;
};

// "HOST", "HOST:PORT", "[V6]", "[V6]:PORT" or "V6".
Result<NodeAddress> parse_node_address(std::string_view text);

// Several of them, with commas between them; at least one.
Result<std::vector<NodeAddress>> parse_node_addresses(std::string_view text);

}  // namespace isthmus::farmem
