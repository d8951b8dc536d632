// Place: a network namespace in which this daemon has addresses, with its steered sockets.
//
// Each virtual function has in each group the member of its number. Numbers are the daemon's, not
// the place's, so a function has the same QP numbers wherever it is.
//
// Coalescing: the kernel may put datagrams of one sender together before they are steered, looking
// at addresses and ports only, which are the same for all functions of a RoCE host. What a local
// sender puts together is for one queue pair; what a network card's driver puts together may be for
// several functions, and all but one would miss theirs. So where packets come from other machines,
// it is switched off as long as more than one function is in use.
//
// Threading: shard-confined.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "control/gid_table.h"
#include "os/fd.h"
#include "os/reuseport_group.h"
#include "os/udp_socket.h"
#include "rdma/packet_port.h"
#include "wire/ip.h"

namespace isthmus::control {

struct PlaceOptions {
  std::vector<wire::IpAddress> only;  // Empty: every address there.
  std::uint16_t port = rdma::kRocePort;
};

// One group's members, in order, as a keeper holds them.
struct KeptGroup {
  wire::IpAddress address;
  std::vector<os::Fd> members;
};

class Place {
 public:
  // In the network namespace `network_namespace`, or in the daemon's own when that is not valid.
  // kAddressInUse: somebody else has the port; the message says who. `kept`: from an earlier
  // daemon, empty otherwise.
  static Result<std::unique_ptr<Place>> open(const PlaceOptions& options,
                                             os::Fd network_namespace,
                                             std::vector<KeptGroup> kept);
  Place(const Place&) = delete;
  Place& operator=(const Place&) = delete;

  std::uint64_t namespace_id() const { return namespace_id_; }
  // Not valid: the daemon's own.
  const os::Fd& network_namespace() const { return network_namespace_; }
  const std::vector<LocalGid>& gids() const { return gids_; }
  bool has(const wire::IpAddress& address) const;
  // Of the device that programs here see. Stays as it was when the place was opened.
  std::uint64_t node_guid() const { return node_guid_; }

  // Copies of the function's sockets, empty of what an earlier holder left unread.
  Result<std::vector<os::Fd>> sockets_of(std::uint32_t function);
  // Datagrams for the function go nowhere, or to its sockets. At first: nowhere.
  Result<void> steer_away(std::uint32_t function);
  Result<void> steer_back(std::uint32_t function);

  // Runs `action` by a thread that is in this network namespace, and waits.
  Result<void> inside(const std::function<Result<void>()>& action) const;

  std::span<const std::unique_ptr<os::ReuseportGroup>> groups() const { return groups_; }

  // Readable when addresses may have changed; then reload_gids().
  const os::Fd& address_watch() const { return address_watch_; }
  // True: the table is another one now.
  bool reload_gids();

 private:
  Place(const PlaceOptions& options, os::Fd network_namespace)
      : options_(options), network_namespace_(std::move(network_namespace)) {}
  Result<void> open_here(std::vector<KeptGroup> kept);
  Result<void> open_group(const wire::IpAddress& address, std::vector<KeptGroup>& kept);
  Result<std::vector<LocalGid>> read_gids() const;
  void choose_coalescing();

  const PlaceOptions options_;
  os::Fd network_namespace_;
  std::uint64_t namespace_id_ = 0;
  std::uint64_t node_guid_ = 0;
  os::Fd address_watch_;
  std::vector<LocalGid> gids_;
  std::vector<std::unique_ptr<os::ReuseportGroup>> groups_;
  std::set<std::uint32_t> users_;  // Functions that are steered to.
  os::Coalescing coalescing_ = os::Coalescing::kOn;  // Of all of them.
};

}  // namespace isthmus::control
