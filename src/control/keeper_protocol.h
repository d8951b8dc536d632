// The messages between the daemon and its keeper.
//
// Primer: sockets of a steered group must stay open, or the kernel renumbers them, and windows and
// namespaces must be found again. So a second process, the keeper, holds copies of all of them. It
// does nothing else, so it has no reason to end; when the daemon is killed, the next one at the
// same socket path connects to the keeper and gets everything back.
//
//     daemon -> keeper    kMember, kFunction, kNamespace with descriptors; kForget, kForgetPlace;
//                         kFinish
//     keeper -> daemon    kEnd, when it listens: from then on the next daemon can find it
//     next daemon         kTakeOver -> every record that is kept, then kEnd
//
// Byte order is the machine's. Input: both sides check what they read with decode_keeper_record.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace isthmus::control {

constexpr std::uint32_t kKeeperMagic = 0x31'50'45'4b;  // "KEP1"

enum class KeeperRecordKind : std::uint32_t {
  kMember = 1,     // Socket `index` of the group at `address` in `namespace_id`. 1 descriptor.
  kFunction = 2,   // Function `index`. 2 descriptors: window, doorbell.
  kNamespace = 3,  // A network namespace that is not the daemon's. 1 descriptor.
  kForget = 4,     // Function `index`.
  kFinish = 5,     // The daemon ends for good; so does the keeper.
  kTakeOver = 6,   // From the next daemon.
  kEnd = 7,        // That was everything.
  kForgetPlace = 8,  // All of `namespace_id`.
};

struct KeeperRecord {
  std::uint32_t magic = kKeeperMagic;
  KeeperRecordKind kind{};
  std::uint64_t namespace_id = 0;
  std::array<std::byte, 16> address{};
  std::uint64_t generation = 0;
  std::uint32_t index = 0;
  std::uint32_t user_id = 0;
  std::int32_t process_id = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(KeeperRecord) == 56);

// `fd_count` descriptors came along.
Result<KeeperRecord> decode_keeper_record(std::span<const std::byte> message,
                                          std::size_t fd_count);

// Where the keeper of the daemon at this attach socket listens.
std::string keeper_socket_path(const std::string& attach_socket_path);

}  // namespace isthmus::control
