// Local sockets of kind SOCK_SEQPACKET: whole messages, in order, that can carry descriptors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

constexpr std::size_t kMaxPassedFds = 16;

struct PeerCredentials {
  std::int32_t process_id;  // As this process sees it; 0 when it cannot.
  std::uint32_t user_id;
  std::uint32_t group_id;
};

struct ReceivedMessage {
  std::size_t bytes = 0;
  std::vector<Fd> fds;
};

enum class Wait { kNo, kYes };

// Listens at a path that does not exist yet; only its owner may connect, unless `for_everybody`.
enum class UnixAccess { kOwner, kEverybody };
Result<Fd> listen_unix(const std::string& path, UnixAccess access);

// kRefused or kNotFound: nobody listens there.
Result<Fd> connect_unix(const std::string& path);

// kAgain: nobody is waiting (the listener never blocks). The accepted end does not block either.
Result<Fd> accept_unix(const Fd& listener);

// Two connected ends, both non-blocking.
Result<std::pair<Fd, Fd>> unix_socket_pair();

// One message. kAgain: the peer does not read (with Wait::kNo). kClosed: it is gone.
Result<void> send_message(const Fd& socket, std::span<const std::byte> bytes,
                          std::span<const int> fds, Wait wait = Wait::kNo);

// kAgain: nothing there (with Wait::kNo). kClosed: the peer is gone. kInvalid: the message was
// longer than the buffer, or carried more descriptors than kMaxPassedFds; it is lost.
Result<ReceivedMessage> receive_message(const Fd& socket, std::span<std::byte> buffer,
                                        Wait wait = Wait::kNo);

Result<PeerCredentials> peer_credentials(const Fd& socket);

}  // namespace isthmus::os
