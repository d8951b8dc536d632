#include "control/attach_server.h"

#include <array>

#include "base/log.h"
#include "os/clock.h"

namespace isthmus::control {

AttachServer::AttachServer(EventLoop& loop, os::Fd listener, Handlers handlers)
    : loop_(loop), listener_(std::move(listener)), handlers_(std::move(handlers)) {}

AttachServer::~AttachServer() {
  loop_.unwatch(listener_.get());
  while (!ungreeted_.empty()) close_ungreeted(ungreeted_.begin()->first);
  for (const auto& [fd, connection] : holders_) loop_.unwatch(fd);
}

Result<void> AttachServer::start() {
  return loop_.watch(listener_.get(), [this] { on_connection(); });
}

void AttachServer::on_connection() {
  auto accepted = os::accept_unix(listener_);
  if (!accepted) {
    // Out of descriptors, most likely. The connection waits; looking again at once would spin.
    if (accepted.error().code == ErrorCode::kAgain) return;
    ISTHMUS_LOG(kError, "%s", accepted.error().message.c_str());
    loop_.unwatch(listener_.get());
    loop_.call_at(os::now_ns() + os::kNsPerSecond, [this] { (void)start(); });
    return;
  }
  if (ungreeted_.size() >= kMaxUngreeted) return;  // Closes it.
  const int fd = accepted->get();
  if (!loop_.watch(fd, [this, fd] { on_greeting(fd); })) return;
  const auto patience =
      loop_.call_at(os::now_ns() + kGreetingPatienceNs, [this, fd] { close_ungreeted(fd); });
  ungreeted_.emplace(fd, Ungreeted{std::move(*accepted), patience});
}

void AttachServer::close_ungreeted(int fd) {
  const auto found = ungreeted_.find(fd);
  loop_.cancel(found->second.patience);
  loop_.unwatch(fd);
  ungreeted_.erase(found);
}

void AttachServer::on_greeting(int fd) {
  std::array<std::byte, attach::kAttachMaxMessageBytes> buffer;
  Ungreeted& waiting = ungreeted_.at(fd);
  auto received = os::receive_message(waiting.connection, buffer);
  if (!received && received.error().code == ErrorCode::kAgain) return;
  const auto credentials = os::peer_credentials(waiting.connection);
  if (!received || !credentials) return close_ungreeted(fd);  // Looked whether somebody is here.

  os::Fd connection = std::move(waiting.connection);
  close_ungreeted(fd);
  const auto hello = attach::decode_hello(std::span(buffer).first(received->bytes));
  if (!hello) {
    ISTHMUS_LOG(kWarning, "process %d: %s", credentials->process_id,
                hello.error().message.c_str());
    const attach::Failure failure = attach::failure_of(hello.error());
    (void)os::send_message(connection, attach::message_bytes(failure), {});  // Or it is gone.
    return;
  }
  dispatch(std::move(connection),
           Greeting{*hello, std::move(received->fds), *credentials});
}

void AttachServer::dispatch(os::Fd connection, Greeting greeting) {
  switch (greeting.hello.kind) {
    case attach::ConnectionKind::kFunction:
    case attach::ConnectionKind::kReattach:
      return handlers_.function(std::move(connection), std::move(greeting));
    case attach::ConnectionKind::kCm:
      return handlers_.cm(std::move(connection), std::move(greeting));
    case attach::ConnectionKind::kHold:
      return hold(std::move(connection));
  }
}

void AttachServer::hold(os::Fd connection) {
  const attach::Welcome welcome;
  if (!os::send_message(connection, attach::message_bytes(welcome), {})) return;
  const int fd = connection.get();
  // Nothing is ever said on it, so being readable means that it is over.
  const auto watched = loop_.watch(fd, [this, fd] {
    loop_.unwatch(fd);
    holders_.erase(fd);
    handlers_.holders_changed();
  });
  if (!watched) return;
  holders_.emplace(fd, std::move(connection));
  handlers_.holders_changed();
}

}  // namespace isthmus::control
