#include "farmem/node_address.h"

#include <algorithm>
#include <charconv>

namespace isthmus::farmem {
namespace {

std::unexpected<Error> no_address(std::string_view text) {
  return fail(ErrorCode::kInvalid, "'%.*s' is no memory node: write HOST or HOST:PORT",
              static_cast<int>(text.size()), text.data());
}

}  // namespace

std::string NodeAddress::text() const {
  const bool is_v6 = host.find(':') != std::string::npos;
  return (is_v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Result<NodeAddress> parse_node_address(std::string_view text) {
  std::string_view host = text;
  std::string_view port;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == std::string_view::npos) return no_address(text);
    host = text.substr(1, end - 1);
    port = text.substr(end + 1);
  } else if (std::ranges::count(text, ':') == 1) {
    host = text.substr(0, text.find(':'));
    port = text.substr(host.size());
  }
  NodeAddress address{.host = std::string(host), .port = kNodePort};
  if (host.empty()) return no_address(text);
  if (port.empty()) return address;
  const char* const end = port.data() + port.size();
  const auto [last, error] = std::from_chars(port.data() + 1, end, address.port);
  if (port[0] != ':' || error != std::errc{} || last != end || address.port == 0) {
    return no_address(text);
  }
  return address;
}

Result<std::vector<NodeAddress>> parse_node_addresses(std::string_view text) {
  std::vector<NodeAddress> addresses;
  while (true) {
    const std::size_t comma = std::min(text.find(','), text.size());
    addresses.push_back(ISTHMUS_TRY(parse_node_address(text.substr(0, comma))));
    if (comma == text.size()) return addresses;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace isthmus::farmem
