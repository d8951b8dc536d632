#include "attach/attach_options.h"

#include <array>
#include <atomic>
#include <cstdlib>

#include "attach/socket_path.h"
#include "base/log.h"
#include "os/poll.h"
#include "os/process.h"
#include "os/unix_socket.h"

namespace isthmus::attach {
namespace {

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

AttachOptions read_environment() {
  return {.socket_path = default_socket_path(),
          .label = variable("ISTHMUS_LABEL"),
          .channel = variable("ISTHMUS_CHANNEL") == "roce" ? ChannelWish::kRoce
                                                           : ChannelWish::kAuto,
          .program = os::program_name()};
}

struct Remembered {
  std::int32_t process_id;
  AttachOptions options;
  const Remembered* before;
};
constinit std::atomic<const Remembered*> remembered{nullptr};

Result<os::Fd> open_welcomed(ConnectionKind kind, const AttachOptions& options) {
  os::Fd socket = ISTHMUS_TRY(connect_to_daemon(options.socket_path));
  const Hello hello = hello_of(kind, options);
  ISTHMUS_TRY_VOID(os::send_message(socket, message_bytes(hello), {}));
  std::array<std::byte, kAttachMaxMessageBytes> buffer;
  const Answer answer = ISTHMUS_TRY(receive_answer(socket, buffer));
  ISTHMUS_TRY(decode_welcome(std::span(buffer).first(answer.bytes)));
  return socket;
}

}  // namespace

AttachOptions AttachOptions::from_environment() {
  const std::int32_t self = os::process_id();
  const Remembered* const last = remembered;
  if (last != nullptr && last->process_id != self) return last->options;
  static_cast<void>(log_level());  // A variable too.
  AttachOptions options = read_environment();
  // Never deleted: another thread may be reading the one from before. They are few.
  if (last == nullptr || !(last->options == options)) {
    remembered = new Remembered{self, options, last};
  }
  return options;
}

Hello hello_of(ConnectionKind kind, const AttachOptions& options) {
  const std::string program = options.program.empty() ? os::program_name() : options.program;
  return Hello{.kind = kind,
               .channel = options.channel,
               .process_id = os::process_id(),
               .label = text_of<sizeof(Hello::label)>(options.label),
               .program = text_of<sizeof(Hello::program)>(program)};
}

Result<os::Fd> connect_to_daemon(const std::string& socket_path) {
  auto socket = os::connect_unix(socket_path);
  if (socket) return socket;
  const ErrorCode code = socket.error().code;
  if (code == ErrorCode::kNotFound || code == ErrorCode::kRefused) {
    return fail(code,
                "no isthmusd answers at %s; start the program with `isthmus run -- PROGRAM`, or "
                "start isthmusd",
                socket_path.c_str());
  }
  if (code == ErrorCode::kDenied) {
    return fail(code, "%s: the daemon there is another user's; set ISTHMUS_SOCKET to one of yours",
                socket.error().message.c_str());
  }
  return socket;
}

Result<Answer> receive_answer(const os::Fd& socket, std::span<std::byte> buffer) {
  const int fd = socket.get();
  if (!os::wait_readable({&fd, 1}, kAnswerPatienceNs)) {
    return fail(ErrorCode::kTimedOut, "isthmusd did not answer within %llu s",
                static_cast<unsigned long long>(kAnswerPatienceNs / 1'000'000'000));
  }
  os::ReceivedMessage message = ISTHMUS_TRY(os::receive_message(socket, buffer));
  return Answer{message.bytes, std::move(message.fds)};
}

Result<os::Fd> open_cm_connection(const AttachOptions& options) {
  return open_welcomed(ConnectionKind::kCm, options);
}

Result<os::Fd> open_hold_connection(const AttachOptions& options) {
  return open_welcomed(ConnectionKind::kHold, options);
}

}  // namespace isthmus::attach
