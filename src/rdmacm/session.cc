#include "rdmacm/session.h"

#include <pthread.h>

#include <algorithm>

#include "base/assert.h"
#include "base/log.h"
#include "rdmacm/failure.h"

namespace isthmus::rdmacm {
namespace {

constexpr std::size_t kClosedChannelsKept = 64;

constinit std::atomic<Session*> session_of_process{nullptr};

// The child's threads, locks and link are the parent's business: it starts anew and leaves the old
// session where it is, because ids that it inherited still point there.
void forget_session_in_child() {
  Session* const session = session_of_process.exchange(nullptr);
  if (session != nullptr) session->set_forgotten();
}

}  // namespace

Session& Session::current() {
  Session* session = session_of_process;
  if (session != nullptr) return *session;
  static const int registered = pthread_atfork(nullptr, nullptr, forget_session_in_child);
  static_cast<void>(registered);
  auto made = std::make_unique<Session>(&DaemonLink::open);
  if (session_of_process.compare_exchange_strong(session, made.get())) return *made.release();
  return *session;
}

Session::~Session() = default;

Result<Identifier*> Session::own(rdma_cm_id* id) {
  if (id == nullptr) return fail(ErrorCode::kInvalid, "no id");
  Identifier& identifier = Identifier::of(id);
  if (identifier.session->forgotten()) {
    return fail_with(EPERM, "use an id of the parent process");
  }
  return &identifier;
}

Result<void> Session::ensure_daemon() {
  std::lock_guard lock(link_mutex_);
  const auto link = link_or_open();
  if (!link) return std::unexpected(link.error());
  return {};
}

Result<DaemonLink*> Session::link_or_open() {
  if (link_ != nullptr) return link_.get();
  auto opened = open_link_();
  if (!opened) {
    static std::atomic<bool> said{false};
    if (!said.exchange(true)) {
      ISTHMUS_LOG(kError, "no connection manager: %s", opened.error().message.c_str());
    }
    return fail_with(ENODEV, "reach the connection manager");
  }
  link_ = std::move(*opened);
  if (link_was_open_) {
    if (const auto recovered = recover(*link_); !recovered) {
      link_.reset();  // The next attempt begins anew.
      return std::unexpected(recovered.error());
    }
  }
  link_was_open_ = true;
  return link_.get();
}

void Session::with_link(const std::function<bool(DaemonLink&)>& use) {
  constexpr int kAttempts = 2;  // The second one with the daemon that replaced the first.
  std::lock_guard lock(link_mutex_);
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const auto link = link_or_open();
    if (!link || use(**link)) return;
    link_.reset();
  }
}

Result<Channel*> Session::create_channel() {
  std::unique_ptr<Channel> channel = ISTHMUS_TRY(Channel::create());
  Result<void> created = fail_with(ENODEV, "make an event channel");
  with_link([&](DaemonLink& link) {
    created = introduce(link, *channel);
    return created || created.error().code != ErrorCode::kClosed;
  });
  if (!created) return std::unexpected(created.error());
  std::lock_guard lock(registry_mutex_);
  channels_.push_back(channel.get());
  return channel.release();
}

Result<void> Session::introduce(DaemonLink& link, Channel& channel) {
  const os::Fd end = ISTHMUS_TRY(channel.renew_socket());
  attach::CmPlainRequest request;
  request.header.command = attach::CmCommand::kCreateChannel;
  channel.handle = ISTHMUS_TRY(link.exchange<attach::CmHandleReply>(request, end.get())).handle;
  return {};
}

void Session::destroy_channel(Channel* channel) {
  {
    std::lock_guard lock(link_mutex_);
    if (link_ != nullptr && channel->handle != 0) {
      attach::CmPlainRequest request;
      request.header.command = attach::CmCommand::kDestroyChannel;
      request.header.id = channel->handle;
      static_cast<void>(link_->exchange<attach::CmPlainReply>(request));
    }
    std::lock_guard registry(registry_mutex_);
    std::erase(channels_, channel);
  }
  channel->close();
  std::lock_guard registry(registry_mutex_);
  closed_channels_.emplace_back(channel);
  if (closed_channels_.size() > kClosedChannelsKept) closed_channels_.pop_front();
}

void Session::add(Identifier& identifier) {
  std::lock_guard lock(registry_mutex_);
  identifier.cookie = next_cookie_++;
  by_cookie_[identifier.cookie] = &identifier;
}

void Session::forget(Identifier& identifier) {
  by_cookie_.erase(identifier.cookie);
  std::erase_if(requests_, [&](const auto& entry) { return entry.second == &identifier; });
  for (const auto& membership : identifier.memberships) memberships_.erase(membership->cookie);
}

Result<std::uint32_t> Session::create_at_daemon(DaemonLink& link, const Identifier& identifier) {
  attach::CmCreateId request;
  request.header.command = attach::CmCommand::kCreateId;
  request.cookie = identifier.cookie;
  request.channel = Channel::of(identifier.channel).handle;
  request.port_space = static_cast<attach::CmPortSpace>(identifier.ps);
  request.qp_type = static_cast<std::uint8_t>(identifier.qp_type);
  return ISTHMUS_TRY(link.exchange<attach::CmHandleReply>(request)).handle;
}

Result<Identifier*> Session::create_identifier(const IdentifierSpec& spec) {
  auto identifier = std::make_unique<Identifier>(*this);
  identifier->context = spec.context;
  identifier->ps = spec.port_space;
  identifier->qp_type = spec.qp_type;
  identifier->channel = spec.channel;
  identifier->synchronous = spec.channel == nullptr;
  if (identifier->synchronous) identifier->channel = ISTHMUS_TRY(create_channel());
  add(*identifier);
  Result<std::uint32_t> handle = fail_with(ENODEV, "make an id");
  with_link([&](DaemonLink& link) {
    handle = create_at_daemon(link, *identifier);
    if (handle) identifier->handle = *handle;
    return handle || handle.error().code != ErrorCode::kClosed;
  });
  if (!handle) {
    {
      std::lock_guard lock(registry_mutex_);
      forget(*identifier);
    }
    if (identifier->synchronous) destroy_channel(&Channel::of(identifier->channel));
    return std::unexpected(handle.error());
  }
  return identifier.release();
}

bool Session::is_about(const QueuedEvent& event, const Identifier& identifier) {
  const attach::CmEvent& wire = event.wire;
  if (wire.listen_cookie != 0) return wire.listen_cookie == identifier.cookie;
  if (wire.multicast != 0) {
    return std::ranges::any_of(identifier.memberships, [&](const auto& membership) {
      return membership->cookie == wire.cookie;
    });
  }
  if (wire.cookie != 0) return wire.cookie == identifier.cookie;
  return wire.id == identifier.handle;
}

void Session::destroy_handle(std::uint32_t handle) {
  std::lock_guard lock(link_mutex_);
  destroy_at_daemon(handle);
}

void Session::destroy_at_daemon(std::uint32_t handle) {
  if (link_ == nullptr || handle == 0) return;
  attach::CmPlainRequest request;
  request.header.command = attach::CmCommand::kDestroyId;
  request.header.id = handle;
  static_cast<void>(link_->exchange<attach::CmCountReply>(request));
}

void Session::destroy_identifier(Identifier* identifier) {
  {
    // Both under the link lock: a recovery must not meet an id that goes away.
    std::lock_guard lock(link_mutex_);
    destroy_at_daemon(identifier->handle);
    std::lock_guard registry(registry_mutex_);
    forget(*identifier);
  }
  Channel& channel = Channel::of(identifier->channel);
  // After the daemon's reply no more events come; those on the way must not be shown.
  const auto unseen =
      channel.extract([&](const QueuedEvent& event) { return is_about(event, *identifier); });
  for (const QueuedEvent& event : unseen) {
    if (event.type == RDMA_CM_EVENT_CONNECT_REQUEST) destroy_handle(event.wire.id);
  }
  {
    std::unique_lock lock(registry_mutex_);
    acknowledged_.wait(lock, [&] { return identifier->events_out == 0; });
  }
  const bool own_channel = identifier->synchronous;
  delete identifier;
  if (own_channel) destroy_channel(&channel);
}

Result<void> Session::migrate(Identifier& identifier, rdma_event_channel* channel) {
  const bool synchronous = channel == nullptr;
  Channel* target = nullptr;
  if (synchronous) {
    target = ISTHMUS_TRY(create_channel());
  } else {
    target = &Channel::of(channel);
  }
  attach::CmMigrateId request;
  request.channel = target->handle;
  const auto reply =
      call<attach::CmCountReply>(identifier, attach::CmCommand::kMigrateId, request);
  if (!reply) {
    if (synchronous) destroy_channel(target);
    return std::unexpected(reply.error());
  }
  Channel& old = Channel::of(identifier.channel);
  const auto unseen =
      old.extract([&](const QueuedEvent& event) { return is_about(event, identifier); });
  target->put_back(unseen);

  const bool old_is_own = identifier.synchronous;
  identifier.synchronous = synchronous;
  identifier.channel = target;
  {
    // Nobody may still work with an event of the old channel when the id has moved.
    std::unique_lock lock(registry_mutex_);
    acknowledged_.wait(lock, [&] { return identifier.events_out == 0; });
  }
  if (old_is_own) destroy_channel(&old);
  return {};
}

}  // namespace isthmus::rdmacm
