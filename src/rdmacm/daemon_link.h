// DaemonLink: the connection of this process to the daemon's connection manager. One request, one
// reply, in order.
//
// Threading: confined to its user (the Session calls it under the link lock).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "attach/cm_protocol.h"
#include "base/result.h"
#include "os/fd.h"

namespace isthmus::rdmacm {

class DaemonLink {
 public:
  // Connects to the attach socket and says that this is a connection of kind cm.
  static Result<std::unique_ptr<DaemonLink>> open();

  // A connected socket whose other end already expects cm requests: for open() and for tests.
  explicit DaemonLink(os::Fd socket) : socket_(std::move(socket)) {}
  DaemonLink(const DaemonLink&) = delete;
  DaemonLink& operator=(const DaemonLink&) = delete;

  // Fills in version and sequence. A reply that carries an error comes back as that Error; kClosed
  // means that the daemon is gone, and then the link is of no more use.
  template <class Reply, class Request>
  Result<Reply> exchange(Request request, int passed_fd = -1) {
    request.header.version = attach::kCmProtocolVersion;
    request.header.sequence = ++sequence_;
    const std::span<const std::byte> answer =
        ISTHMUS_TRY(exchange_bytes(attach::bytes_of(request), passed_fd));
    auto reply = attach::decode_cm_reply<Reply>(answer, request.header.command);
    if (!reply || reply->header.sequence != sequence_) {
      return fail(ErrorCode::kClosed, "the daemon's reply is not one to our request");
    }
    if (reply->header.error != 0) return error_of(reply->header);
    return *reply;
  }

 private:
  Result<std::span<const std::byte>> exchange_bytes(std::span<const std::byte> request,
                                                    int passed_fd);
  static std::unexpected<Error> error_of(const attach::CmReplyHeader& header);

  os::Fd socket_;
  std::uint32_t sequence_ = 0;
  std::array<std::byte, attach::kCmMaxMessageBytes> buffer_{};
};

}  // namespace isthmus::rdmacm
