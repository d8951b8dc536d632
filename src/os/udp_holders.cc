#include "os/udp_holders.h"

#include <arpa/inet.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <span>
#include <string>

namespace isthmus::os {
namespace {

// The file prints each 32-bit word of an address, which is in network order, as a number of this
// machine.
wire::IpAddress address_of_words(std::span<const std::uint32_t> words) {
  if (words.size() == 1) return wire::IpAddress::from_v4(ntohl(words[0]));
  return wire::IpAddress::from_bytes(
      std::span<const std::byte, 16>(std::as_bytes(words.first<4>())));
}

// "  sl  local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode ..."
void take_line(const std::string& line, std::uint16_t port, std::vector<UdpHolder>& holders) {
  char local[64] = {};
  unsigned user = 0;
  unsigned long inode = 0;
  if (std::sscanf(line.c_str(), " %*d: %63[0-9A-Fa-f:] %*s %*s %*s %*s %*s %u %*d %lu", local,
                  &user, &inode) != 3) {
    return;  // The heading.
  }
  const std::string text = local;
  const std::size_t colon = text.find(':');
  if (colon != 8 && colon != 32) return;
  if (std::stoul(text.substr(colon + 1), nullptr, 16) != port) return;
  std::array<std::uint32_t, 4> words{};
  const std::size_t count = colon / 8;
  for (std::size_t i = 0; i < count; ++i) {
    words[i] = static_cast<std::uint32_t>(std::stoul(text.substr(8 * i, 8), nullptr, 16));
  }
  holders.push_back({.address = address_of_words(std::span(words).first(count)),
                     .user_id = user,
                     .is_kernel = inode == 0});
}

}  // namespace

Result<std::vector<UdpHolder>> list_udp_holders(std::uint16_t port) {
  std::vector<UdpHolder> holders;
  // By thread, because another thread of this process may be in another network namespace.
  for (const char* name : {"/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"}) {
    std::ifstream file(name);
    for (std::string line; std::getline(file, line);) take_line(line, port, holders);
  }
  return holders;
}

}  // namespace isthmus::os
