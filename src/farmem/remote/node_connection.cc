#include "farmem/remote/node_connection.h"

#include <array>
#include <bit>
#include <cerrno>
#include <cstring>

#include "farmem/remote/data_link.h"
#include "os/clock.h"
#include "os/poll.h"

namespace isthmus::farmem {
namespace {

constexpr int kResolveMs = 2000;

Error closed_error(const std::string& name, const std::string& reason) {
  return {.code = ErrorCode::kClosed, .message = "memory node " + name + ": " + reason};
}

}  // namespace

Result<std::unique_ptr<NodeConnection>> NodeConnection::connect(const Options& options) {
  std::unique_ptr<NodeConnection> connection{new NodeConnection(options.address)};
  ISTHMUS_TRY_VOID(connection->resolve(options));
  ISTHMUS_TRY_VOID(connection->establish());
  connection->welcome_ = ISTHMUS_TRY(connection->ask<Welcome>(
      Hello{.token = options.token, .label = label_of(options.label)}));
  return connection;
}

NodeConnection::~NodeConnection() {
  // So that the node takes its memory back at once.
  if (endpoint_) rdma_disconnect(id_.get());
}

Result<void> NodeConnection::resolve(const Options& options) {
  events_.reset(rdma_create_event_channel());
  if (!events_) {
    return fail_errno(errno, "reach the connection manager; is the program under `isthmus run`?");
  }
  ISTHMUS_TRY_VOID(os::set_non_blocking(events_->fd));
  rdma_cm_id* id = nullptr;
  if (rdma_create_id(events_.get(), &id, nullptr, RDMA_PS_TCP) != 0) {
    return fail_errno(errno, "reach the connection manager; is the program under `isthmus run`?");
  }
  id_.reset(id);
  if (options.peer != nullptr) {
    peer_ = *options.peer;
  } else {
    rdma_addrinfo hints{};
    hints.ai_port_space = RDMA_PS_TCP;
    rdma_addrinfo* found = nullptr;
    const std::string port = std::to_string(address_.port);
    if (rdma_getaddrinfo(address_.host.c_str(), port.c_str(), &hints, &found) != 0 ||
        found->ai_dst_len > sizeof peer_) {
      return fail(ErrorCode::kNotFound, "memory node %s: no such host", name_.c_str());
    }
    const AddressInfoOwner info{found};
    std::memcpy(&peer_, info->ai_dst_addr, info->ai_dst_len);
  }
  // SAFETY: what sockaddr_storage is for.
  if (rdma_resolve_addr(id, nullptr, reinterpret_cast<sockaddr*>(&peer_), kResolveMs) != 0) {
    return fail_errno(errno, "find the way to memory node " + name_);
  }
  ISTHMUS_TRY_VOID(await_event(RDMA_CM_EVENT_ADDR_RESOLVED));
  if (rdma_resolve_route(id, kResolveMs) != 0) {
    return fail_errno(errno, "find the way to memory node " + name_);
  }
  return await_event(RDMA_CM_EVENT_ROUTE_RESOLVED);
}

Result<void> NodeConnection::establish() {
  ibv_context* context = id_->verbs;
  pd_.reset(ibv_alloc_pd(context));
  completion_channel_.reset(ibv_create_comp_channel(context));
  if (!pd_ || !completion_channel_) return fail_errno(errno, "create a protection domain");
  ISTHMUS_TRY_VOID(os::set_non_blocking(completion_channel_->fd));
  cq_.reset(ibv_create_cq(context, ControlEndpoint::kMostCompletions, nullptr,
                          completion_channel_.get(), 0));
  if (!cq_) return fail_errno(errno, "create a completion queue");
  endpoint_ = ISTHMUS_TRY(ControlEndpoint::create(*id_, *pd_, *cq_));
  rdma_conn_param parameters = control_parameters();
  if (rdma_connect(id_.get(), &parameters) != 0) {
    return fail_errno(errno, "connect to memory node " + name_);
  }
  ISTHMUS_TRY_VOID(await_event(RDMA_CM_EVENT_ESTABLISHED));
  if (const sockaddr* local = rdma_get_local_addr(id_.get())) local_gid_ = gid_of(*local);
  return {};
}

Result<void> NodeConnection::await_event(rdma_cm_event_type wanted) {
  const std::uint64_t deadline = os::now_ns() + kPatienceMs * os::kNsPerMs;
  while (true) {
    rdma_cm_event* event = nullptr;
    if (rdma_get_cm_event(events_.get(), &event) == 0) {
      const rdma_cm_event_type type = event->event;
      rdma_ack_cm_event(event);
      if (type == wanted) return {};
      const bool refused = type == RDMA_CM_EVENT_REJECTED;
      return fail(refused ? ErrorCode::kRefused : ErrorCode::kUnreachable,
                  "memory node %s: %s", name_.c_str(),
                  refused ? "nobody serves there, or the policy does not allow it"
                          : rdma_event_str(type));
    }
    if (errno != EAGAIN && errno != EWOULDBLOCK) {
      return fail_errno(errno, "wait for the connection manager");
    }
    const std::uint64_t now = os::now_ns();
    if (now >= deadline) {
      return fail(ErrorCode::kTimedOut, "memory node %s does not answer", name_.c_str());
    }
    const int fd = events_->fd;
    os::wait_readable({&fd, 1}, deadline - now);
  }
}

template <class Reply>
Result<Reply> NodeConnection::ask(const NodeRequest& request) {
  const NodeReply reply = ISTHMUS_TRY(exchange(request));
  if (const auto* wanted = std::get_if<Reply>(&reply)) return *wanted;
  if (const auto* refused = std::get_if<Refused>(&reply)) {
    return fail(error_code_of(refused->reason), "memory node %s: %s", name_.c_str(),
                refused->text.data());
  }
  return fail(ErrorCode::kInvalid, "memory node %s gave an answer to another question",
              name_.c_str());
}

Result<Granted> NodeConnection::reserve(std::uint32_t slabs) {
  return ask<Granted>(Reserve{.slabs = slabs});
}

Result<void> NodeConnection::release(std::uint32_t slab) {
  ISTHMUS_TRY(ask<Done>(Release{.slab = slab}));
  return {};
}

Result<ChannelEnd> NodeConnection::open_channel(const ChannelEnd& ours) {
  return ISTHMUS_TRY(ask<ChannelOpened>(OpenChannel{ours})).end;
}

Result<void> NodeConnection::close_channel(std::uint32_t node_qpn) {
  ISTHMUS_TRY(ask<Done>(CloseChannel{.qpn = node_qpn}));
  return {};
}

Result<void> NodeConnection::tell_of_heirs(Heirs heirs) {
  ISTHMUS_TRY(ask<Done>(KeepAlive{.heirs = heirs}));
  return {};
}

Result<NodeReply> NodeConnection::exchange(const NodeRequest& request) {
  const std::lock_guard lock{mutex_};
  const std::uint64_t deadline = os::now_ns() + kPatienceMs * os::kNsPerMs;
  awaited_.reset();
  reply_.reset();
  take_completions();
  while (!closed_) {
    if (!awaited_ && std::popcount(places_under_way_) < static_cast<int>(ControlEndpoint::kDepth)) {
      ISTHMUS_TRY_VOID(post(request));
      awaited_ = sequence_;
    }
    take_completions();
    if (reply_) return *std::exchange(reply_, std::nullopt);
    take_events();
    if (closed_) break;
    if (os::now_ns() >= deadline) {
      return fail(ErrorCode::kTimedOut, "memory node %s does not answer", name_.c_str());
    }
    wait_until(deadline);
  }
  return std::unexpected(closed_error(name_, reason_));
}

Result<void> NodeConnection::post(const NodeRequest& request) {
  const auto place = static_cast<std::uint32_t>(std::countr_one(places_under_way_));
  auto sent = endpoint_->send(place, encode(++sequence_, request).span());
  if (sent) places_under_way_ |= 1u << place;
  return sent;
}

void NodeConnection::take_events() {
  rdma_cm_event* event = nullptr;
  while (rdma_get_cm_event(events_.get(), &event) == 0) {
    const rdma_cm_event_type type = event->event;
    rdma_ack_cm_event(event);
    if (type == RDMA_CM_EVENT_DISCONNECTED || type == RDMA_CM_EVENT_DEVICE_REMOVAL) {
      close("it has ended");
    }
  }
}

void NodeConnection::take_completions() {
  std::array<ibv_wc, ControlEndpoint::kMostCompletions> list;
  int count = 0;
  while ((count = ibv_poll_cq(cq_.get(), list.size(), list.data())) > 0) {
    for (int i = 0; i < count; ++i) {
      if (list[i].status != IBV_WC_SUCCESS) {
        close(ibv_wc_status_str(list[i].status));
        continue;
      }
      const auto done = endpoint_->completed(list[i]);
      if (done.sent) {
        places_under_way_ &= ~(1u << done.place);
      } else {
        take_reply(done);
      }
    }
  }
}

void NodeConnection::take_reply(const ControlEndpoint::Completed& done) {
  auto reply = decode_node_reply(done.received);
  if (!reply) {
    close("it sends " + reply.error().message);
    return;
  }
  // Answers to what nobody waits for any more are passed over, such as those to KeepAlive.
  if (awaited_ == reply->sequence) reply_ = std::move(reply->body);
  if (!endpoint_->receive(done.place)) close("its connection is broken");
}

void NodeConnection::wait_until(std::uint64_t deadline_ns) {
  ibv_req_notify_cq(cq_.get(), 0);
  take_completions();  // What came before the request for a notification is announced by nobody.
  if (reply_ || closed_) return;
  const std::uint64_t now = os::now_ns();
  if (now >= deadline_ns) return;
  const std::array<int, 2> fds{completion_channel_->fd, events_->fd};
  os::wait_readable(fds, deadline_ns - now);
  ibv_cq* cq = nullptr;
  void* context = nullptr;
  while (ibv_get_cq_event(completion_channel_.get(), &cq, &context) == 0) {
    ibv_ack_cq_events(cq, 1);
  }
}

void NodeConnection::beat() {
  const std::lock_guard lock{mutex_};
  take_completions();
  take_events();
  if (closed_) return;
  // A node that does not even take messages will hear of us when it does.
  if (std::popcount(places_under_way_) + 1 < static_cast<int>(ControlEndpoint::kDepth)) {
    if (!post(KeepAlive{})) close("its connection is broken");
  }
}

void NodeConnection::send_raw(std::span<const std::byte> bytes) {
  const std::lock_guard lock{mutex_};
  if (!endpoint_->send(0, bytes)) close("its connection is broken");
}

void NodeConnection::look() {
  const std::lock_guard lock{mutex_};
  take_completions();
  take_events();
}

void NodeConnection::close(const std::string& reason) {
  if (closed_) return;
  reason_ = reason;
  closed_ = true;
}

std::string NodeConnection::reason() const {
  const std::lock_guard lock{mutex_};
  return reason_;
}

}  // namespace isthmus::farmem
