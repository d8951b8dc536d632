// CmMark: the flag on a connection message that says "the policy of the sender's host let it pass".
//
// Primer: the daemon is the only one that sends from queue pair 1, so whatever leaves there has
// passed its policy. The receiver cannot see that, as anybody on the network may send such a
// packet. So daemons of one cluster share a key and put a keyed hash of the message and its two
// addresses into a field of the MAD header that the protocol does not use, the attribute modifier.
// Other implementations leave 0 there and ignore what they find.
//
//     mark              with a key             without a key
//     0                 foreign                foreign
//     the right one     marked                 -
//     any other         forged: dropped        foreign
//
// The hash is SipHash-2-4 cut to 32 bits: a forger has one chance in 2^32 per message, and each
// miss is counted. What is repeated on purpose is a duplicate, which the protocol ignores.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "wire/ip.h"
#include "wire/mad.h"

namespace isthmus::control {

using ClusterKey = std::array<std::byte, 16>;

// The key of a secret text of any length, as a file holds it; white space at its end is ignored.
ClusterKey cluster_key_of(std::string_view secret);

// SipHash-2-4 (Aumasson, Bernstein 2012).
std::uint64_t siphash(const ClusterKey& key, std::span<const std::byte> bytes);

enum class MarkVerdict : std::uint8_t {
  kForeign,  // Nobody vouches for it.
  kMarked,   // A daemon with our key has passed it.
  kForged,   // Drop it and count it.
};

class CmMark {
 public:
  explicit CmMark(std::optional<ClusterKey> key) : key_(key) {}

  // Writes the mark into the MAD; 0 without a key.
  void stamp(const wire::IpAddress& source, const wire::IpAddress& destination,
             std::span<std::byte, wire::kMadBytes> mad) const;
  MarkVerdict judge(const wire::IpAddress& source, const wire::IpAddress& destination,
                    std::span<const std::byte, wire::kMadBytes> mad) const;

 private:
  std::uint32_t mark_of(const wire::IpAddress& source, const wire::IpAddress& destination,
                        std::span<const std::byte, wire::kMadBytes> mad) const;

  std::optional<ClusterKey> key_;
};

}  // namespace isthmus::control
