// ReuseportGroup: many UDP sockets of one address and port; the kernel hands each datagram to the
// one its content names.
//
// Primer: sockets with SO_REUSEPORT form a group, numbered in the order of binding. A classic BPF
// program attached to the group returns the number of the socket for a datagram. Ours reads the
// top 10 bits of the destination QP number (bits of bytes 5 and 6 of the UDP payload): the number
// of the virtual function. Anything else, and what is too short, goes to socket 0.
//
// Invariants: a closed member's number is given to the last member, which would send every
// function's traffic astray; so all members stay open here (and in the keeper) for ever, also when
// nobody uses them. A new member is reachable only after the program has been attached again.
//
// A member that was handed out cannot replace the program (SO_LOCK_FILTER). Socket 0 never leaves.
//
// Threading: shard-confined.
// Spec: socket(7), SO_ATTACH_REUSEPORT_CBPF.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "os/fd.h"
#include "wire/ip.h"

namespace isthmus::os {

struct ReuseportGroupOptions {
  wire::IpAddress address;  // 0.0.0.0 (as IPv4) or ::, for all of that family.
  std::uint16_t port = 0;
  std::uint32_t max_members = 1024;  // Of the numbers that the 10 bits can name.
};

class ReuseportGroup {
 public:
  // With socket 0 alone. kAddressInUse: another user, another program or the kernel has the port.
  static Result<std::unique_ptr<ReuseportGroup>> create(const ReuseportGroupOptions& options);
  // Members kept by somebody else, in the order of their numbers. All are steered away from but 0:
  // steer_back() those whose holders are still there.
  static Result<std::unique_ptr<ReuseportGroup>> adopt(const ReuseportGroupOptions& options,
                                                       std::vector<Fd> members);
  ReuseportGroup(const ReuseportGroup&) = delete;
  ReuseportGroup& operator=(const ReuseportGroup&) = delete;

  const wire::IpAddress& address() const { return options_.address; }
  std::uint16_t port() const { return options_.port; }
  std::uint32_t size() const { return static_cast<std::uint32_t>(members_.size()); }
  const Fd& member(std::uint32_t index) const { return members_.at(index); }

  // Makes member `index` exist.
  Result<void> grow_to_include(std::uint32_t index);

  // From now on datagrams for `index` go to socket 0, which ignores them; and back again. For a
  // holder that does not obey.
  Result<void> steer_away(std::uint32_t index);
  Result<void> steer_back(std::uint32_t index);

  // Throws away what has arrived at a member: a new holder must not see the old one's datagrams.
  void drain_member(std::uint32_t index);

 private:
  ReuseportGroup(const ReuseportGroupOptions& options, std::vector<Fd> members);
  Result<void> attach_program();

  ReuseportGroupOptions options_;
  std::vector<Fd> members_;
  std::vector<bool> steered_away_;
};

}  // namespace isthmus::os
