#include "rdmacm/daemon_link.h"

#include "attach/attach_options.h"
#include "os/unix_socket.h"
#include "rdmacm/failure.h"

namespace isthmus::rdmacm {

Result<std::unique_ptr<DaemonLink>> DaemonLink::open() {
  return std::make_unique<DaemonLink>(
      ISTHMUS_TRY(attach::open_cm_connection(attach::AttachOptions::from_environment())));
}

Result<std::span<const std::byte>> DaemonLink::exchange_bytes(std::span<const std::byte> request,
                                                              int passed_fd) {
  const auto gone = [](const Error& error) {
    return fail(ErrorCode::kClosed, "the daemon is gone: %s", error.message.c_str());
  };
  const std::span<const int> fds{&passed_fd, passed_fd >= 0 ? 1u : 0u};
  const auto sent = os::send_message(socket_, request, fds, os::Wait::kYes);
  if (!sent) return gone(sent.error());
  const auto answer = attach::receive_answer(socket_, buffer_);
  if (!answer) return gone(answer.error());
  return std::span<const std::byte>{buffer_}.first(answer->bytes);
}

std::unexpected<Error> DaemonLink::error_of(const attach::CmReplyHeader& header) {
  return fail_with(header.error, "the connection manager refuses command " +
                                      std::to_string(std::to_underlying(header.command)));
}

}  // namespace isthmus::rdmacm
