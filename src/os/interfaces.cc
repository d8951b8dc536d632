#include "os/interfaces.h"

#include <ifaddrs.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <optional>

#include "os/fd.h"
#include "os/socket_address.h"

namespace isthmus::os {
namespace {

unsigned ones_in(const void* mask, std::size_t bytes) {
  unsigned count = 0;
  const auto* octets = static_cast<const unsigned char*>(mask);
  for (std::size_t i = 0; i < bytes; ++i) count += static_cast<unsigned>(std::popcount(octets[i]));
  return count;
}

unsigned prefix_bits_of(const sockaddr* mask, int family) {
  if (!mask) return 0;
  // SAFETY: getifaddrs gives a mask of the address's own family.
  if (family == AF_INET) {
    return ones_in(&reinterpret_cast<const sockaddr_in*>(mask)->sin_addr, 4);
  }
  return ones_in(&reinterpret_cast<const sockaddr_in6*>(mask)->sin6_addr, 16);
}

std::uint32_t mtu_of(const Fd& any_socket, const std::string& name) {
  ifreq request{};
  std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
  if (ioctl(any_socket.get(), SIOCGIFMTU, &request) != 0) return 0;
  return static_cast<std::uint32_t>(request.ifr_mtu);
}

std::string driver_of(const Fd& any_socket, const std::string& name) {
  ethtool_drvinfo info{};
  info.cmd = ETHTOOL_GDRVINFO;
  ifreq request{};
  std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
  // SAFETY: the kernel reads and writes the structure that the command names.
  request.ifr_data = reinterpret_cast<char*>(&info);
  if (ioctl(any_socket.get(), SIOCETHTOOL, &request) != 0) return {};
  return info.driver;
}

Interface& entry_of(std::vector<Interface>& interfaces, const ifaddrs& item) {
  const auto found = std::ranges::find(interfaces, item.ifa_name, &Interface::name);
  if (found != interfaces.end()) return *found;
  Interface fresh;
  fresh.name = item.ifa_name;
  fresh.index = if_nametoindex(item.ifa_name);
  fresh.is_up = (item.ifa_flags & IFF_UP) != 0;
  fresh.is_loopback = (item.ifa_flags & IFF_LOOPBACK) != 0;
  return interfaces.emplace_back(std::move(fresh));
}

void note_hardware_address(Interface& entry, const sockaddr* address) {
  // SAFETY: the family says that it is one.
  const auto* link = reinterpret_cast<const sockaddr_ll*>(address);
  if (link->sll_halen != entry.mac.size()) return;
  std::memcpy(entry.mac.data(), link->sll_addr, entry.mac.size());
}

}  // namespace

bool Interface::owns(const wire::IpAddress& address) const {
  if (std::ranges::find(addresses, address, &InterfaceAddress::address) != addresses.end()) {
    return true;
  }
  return is_loopback && address.is_v4() && address.is_loopback();
}

Result<std::vector<Interface>> list_interfaces() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return fail_errno(errno, "list the network interfaces");
  const std::unique_ptr<ifaddrs, decltype(&freeifaddrs)> owner(list, freeifaddrs);
  const Fd any_socket{socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)};

  std::vector<Interface> interfaces;
  for (const ifaddrs* item = list; item; item = item->ifa_next) {
    Interface& entry = entry_of(interfaces, *item);
    if (!item->ifa_addr) continue;
    const int family = item->ifa_addr->sa_family;
    if (family == AF_PACKET) note_hardware_address(entry, item->ifa_addr);
    if (family != AF_INET && family != AF_INET6) continue;
    entry.addresses.push_back({.address = ip_address_of(*item->ifa_addr),
                               .prefix_bits = prefix_bits_of(item->ifa_netmask, family)});
  }
  for (Interface& entry : interfaces) {
    entry.mtu = mtu_of(any_socket, entry.name);
    if (!entry.is_loopback) entry.driver = driver_of(any_socket, entry.name);
  }
  return interfaces;
}

}  // namespace isthmus::os
