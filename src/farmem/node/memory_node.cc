#include "farmem/node/memory_node.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/assert.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/event_fd.h"
#include "os/poll.h"
#include "os/random.h"
#include "os/timer_fd.h"

namespace isthmus::farmem {
namespace {

enum Tag : std::uint64_t { kStop, kEvents, kCompletions, kTimer };

constexpr int kBacklog = 128;
constexpr std::uint32_t kTicksOfLease = 4;

std::uint64_t tick_ns(const MemoryNodeOptions& options) {
  return options.lease_ms * os::kNsPerMs / kTicksOfLease;
}

RefusalReason reason_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNoMemory: return RefusalReason::kLimit;
    case ErrorCode::kNotFound:
    case ErrorCode::kInvalid: return RefusalReason::kMalformed;
    default: return RefusalReason::kFailed;
  }
}

}  // namespace

Result<std::unique_ptr<MemoryNode>> MemoryNode::create(const MemoryNodeOptions& options) {
  if (options.lease_ms < 100) {
    return fail(ErrorCode::kInvalid, "a lease of %u ms; it takes 100 at least", options.lease_ms);
  }
  auto pool = ISTHMUS_TRY(
      SlabPool::create({.bytes = options.bytes, .slab_bytes = options.slab_bytes}));
  std::unique_ptr<MemoryNode> node{new MemoryNode(options, std::move(pool))};
  ISTHMUS_TRY_VOID(node->start());
  return node;
}

MemoryNode::~MemoryNode() {
  for (auto& [qpn, client] : clients_) rdma_disconnect(client->id.get());
}

Result<void> MemoryNode::start() {
  node_id_ = os::random_u64();
  note_free();
  changed_ = ISTHMUS_TRY(os::create_event_fd());
  timer_ = ISTHMUS_TRY(os::create_timer_fd());
  epoll_ = ISTHMUS_TRY(os::Epoll::create());
  context_ = ISTHMUS_TRY(open_data_context());
  data_cq_.reset(ibv_create_cq(context_.get(), 1, nullptr, nullptr, 0));
  if (!data_cq_) return fail_errno(errno, "create a completion queue");
  ISTHMUS_TRY_VOID(listen());
  ISTHMUS_TRY_VOID(epoll_->add(events_->fd, kEvents));
  return epoll_->add(timer_.get(), kTimer);
}

Result<void> MemoryNode::listen() {
  events_.reset(rdma_create_event_channel());
  if (!events_) return fail_errno(errno, "reach the connection manager");
  ISTHMUS_TRY_VOID(os::set_non_blocking(events_->fd));
  rdma_cm_id* id = nullptr;
  if (rdma_create_id(events_.get(), &id, nullptr, RDMA_PS_TCP) != 0) {
    return fail_errno(errno, "reach the connection manager");
  }
  listener_.reset(id);
  rdma_addrinfo hints{};
  hints.ai_flags = RAI_PASSIVE;
  hints.ai_port_space = RDMA_PS_TCP;
  rdma_addrinfo* found = nullptr;
  const std::string port = std::to_string(options_.port);
  const char* host = options_.bind.empty() ? nullptr : options_.bind.c_str();
  if (rdma_getaddrinfo(host, port.c_str(), &hints, &found) != 0) {
    return fail(ErrorCode::kNotFound, "%s is no address of this host", options_.bind.c_str());
  }
  const AddressInfoOwner info{found};
  const std::string place =
      (options_.bind.empty() ? "port " : options_.bind + ", port ") + port;
  if (rdma_bind_addr(id, info->ai_src_addr) != 0 || rdma_listen(id, kBacklog) != 0) {
    return fail_errno(errno, "listen at " + place);
  }
  port_ = ntohs(rdma_get_src_port(id));
  address_ = options_.bind.empty() ? text_of(first_gid(*context_)) : options_.bind;
  return {};
}

Result<void> MemoryNode::make_control_objects(ibv_context& context) {
  if (cq_) return {};
  pd_.reset(ibv_alloc_pd(&context));
  completion_channel_.reset(ibv_create_comp_channel(&context));
  if (!pd_ || !completion_channel_) return fail_errno(errno, "create a protection domain");
  ISTHMUS_TRY_VOID(os::set_non_blocking(completion_channel_->fd));
  const int depth = static_cast<int>(kMostConnections) * ControlEndpoint::kMostCompletions;
  CqOwner cq{ibv_create_cq(&context, depth, nullptr, completion_channel_.get(), 0)};
  if (!cq) return fail_errno(errno, "create a completion queue");
  ibv_req_notify_cq(cq.get(), 0);
  ISTHMUS_TRY_VOID(epoll_->add(completion_channel_->fd, kCompletions));
  cq_ = std::move(cq);
  return {};
}

Result<void> MemoryNode::run(const os::Fd& stop) {
  ISTHMUS_TRY_VOID(epoll_->add(stop.get(), kStop));
  last_tick_ns_ = os::now_ns();
  os::set_timer(timer_, tick_ns(options_));
  std::array<os::Readiness, 8> ready;
  while (true) {
    bool tick = false;
    for (const auto& found : epoll_->wait(ready, os::kWaitForEver)) {
      if (found.tag == kStop) return {};
      tick = tick || found.tag == kTimer;
    }
    // What was said counts before the silence that a late tick would see.
    if (cq_) take_completions();
    ISTHMUS_TRY_VOID(take_events());
    if (tick) on_tick();
  }
}

Result<void> MemoryNode::take_events() {
  rdma_cm_event* event = nullptr;
  while (rdma_get_cm_event(events_.get(), &event) == 0) {
    const rdma_cm_event_type type = event->event;
    rdma_cm_id* const id = event->id;
    // An id with unacknowledged events cannot end.
    rdma_ack_cm_event(event);
    switch (type) {
      case RDMA_CM_EVENT_CONNECT_REQUEST:
        on_request(id);
        break;
      case RDMA_CM_EVENT_DEVICE_REMOVAL:
        return fail(ErrorCode::kClosed, "the RDMA device is gone; isthmusd has ended");
      case RDMA_CM_EVENT_DISCONNECTED:
      case RDMA_CM_EVENT_CONNECT_ERROR:
      case RDMA_CM_EVENT_UNREACHABLE:
      case RDMA_CM_EVENT_REJECTED:
        if (id->context != nullptr) drop(*static_cast<Client*>(id->context), "it has ended");
        break;
      default:
        break;
    }
  }
  return {};
}

void MemoryNode::on_request(rdma_cm_id* raw_id) {
  CmIdOwner id{raw_id};
  raw_id->context = nullptr;  // The listener's.
  if (clients_.size() >= kMostConnections) {
    rdma_reject(raw_id, nullptr, 0);
    return;
  }
  if (const auto accepted = accept(std::move(id)); !accepted) {
    ISTHMUS_LOG(kWarning, "a program could not connect: %s", accepted.error().message.c_str());
  }
}

Result<void> MemoryNode::accept(CmIdOwner id) {
  ISTHMUS_TRY_VOID(make_control_objects(*id->verbs));
  auto client = std::make_unique<Client>();
  client->id = std::move(id);
  client->endpoint = ISTHMUS_TRY(ControlEndpoint::create(*client->id, *pd_, *cq_));
  client->heard_ns = os::now_ns();
  rdma_conn_param parameters = control_parameters();
  if (rdma_accept(client->id.get(), &parameters) != 0) {
    return fail_errno(errno, "accept a connection");
  }
  client->id->context = client.get();
  clients_.emplace(client->endpoint->qpn(), std::move(client));
  return {};
}

void MemoryNode::take_completions() {
  ibv_cq* cq = nullptr;
  void* context = nullptr;
  while (ibv_get_cq_event(completion_channel_.get(), &cq, &context) == 0) {
    ibv_ack_cq_events(cq, 1);
  }
  ibv_req_notify_cq(cq_.get(), 0);
  std::array<ibv_wc, 16> list;
  int count = 0;
  while ((count = ibv_poll_cq(cq_.get(), list.size(), list.data())) > 0) {
    for (int i = 0; i < count; ++i) {
      // One that was dropped for an earlier completion is not there any more.
      const auto found = clients_.find(list[i].qp_num);
      if (found != clients_.end()) on_completion(*found->second, list[i]);
    }
  }
}

void MemoryNode::on_completion(Client& client, const ibv_wc& wc) {
  if (wc.status != IBV_WC_SUCCESS) return drop(client, ibv_wc_status_str(wc.status));
  const auto done = client.endpoint->completed(wc);
  if (done.sent) {
    if (!client.endpoint->receive(done.place)) drop(client, "its connection is broken");
    return;
  }
  client.heard_ns = os::now_ns();
  const auto request = decode_node_request(done.received);
  if (!request) return drop(client, request.error().message.c_str());
  const NodeReply reply = answer(client, request->body);
  if (!client.endpoint->send(done.place, encode(request->sequence, reply).span())) {
    drop(client, "its connection is broken");
  }
}

void MemoryNode::drop(Client& client, const char* why) {
  const std::size_t slabs = client.session ? client.session->slab_count() : 0;
  ISTHMUS_LOG(kInfo, "%s: %s; %zu slabs",
              client.session ? client.session->label().c_str() : "a program", why, slabs);
  rdma_disconnect(client.id.get());
  const std::unique_ptr<Client> last = std::move(clients_.extract(client.endpoint->qpn()).mapped());
  const SessionToken token = last->session ? last->session->token() : SessionToken{};
  if (last->session) {
    // Whatever of them is still on its way comes to nobody.
    for (const std::uint32_t qpn : last->channels) (void)last->session->close_channel(qpn);
    const bool is_last = last->session.use_count() == 1;
    if (is_last && last->session->heirs_until_ns() > os::now_ns()) waiting_[token] = last->session;
  }
  last->session.reset();
  const auto session = sessions_.find(token);
  if (session != sessions_.end() && session->second.expired()) sessions_.erase(session);
  note_free();
}

void MemoryNode::on_tick() {
  const std::uint64_t now = os::now_ns();
  const std::uint64_t period = tick_ns(options_);
  const std::uint64_t gap = now - last_tick_ns_;
  last_tick_ns_ = now;
  os::set_timer(timer_, period);
  for (auto next = clients_.begin(); next != clients_.end();) {
    Client& client = *(next++)->second;
    // We were not there to hear.
    if (gap > 2 * period) client.heard_ns += gap - period;
    if (client.heard_ns + options_.lease_ms * os::kNsPerMs < now) drop(client, "it is silent");
  }
  if (gap <= 2 * period) end_waiting(now);
}

void MemoryNode::end_waiting(std::uint64_t now) {
  const auto ended = std::erase_if(
      waiting_, [now](const auto& entry) { return entry.second->heirs_until_ns() < now; });
  if (ended == 0) return;
  std::erase_if(sessions_, [](const auto& entry) { return entry.second.expired(); });
  note_free();
}

NodeReply MemoryNode::answer(Client& client, const NodeRequest& request) {
  if (const auto* hello = std::get_if<Hello>(&request)) return begin_session(client, *hello);
  if (!client.session) return refuse(RefusalReason::kMalformed, "a connection begins with Hello");
  NodeSession& session = *client.session;
  if (const auto* wanted = std::get_if<Reserve>(&request)) return reserve(session, *wanted);
  if (const auto* open = std::get_if<OpenChannel>(&request)) return open_channel(client, *open);
  if (const auto* release = std::get_if<Release>(&request)) {
    const auto released = session.release_slab(release->slab);
    note_free();
    return done_or_refused(released);
  }
  if (const auto* close = std::get_if<CloseChannel>(&request)) {
    client.channels.erase(close->qpn);
    return done_or_refused(session.close_channel(close->qpn));
  }
  const Heirs heirs = std::get<KeepAlive>(request).heirs;
  if (heirs == Heirs::kExpected) {
    session.expect_heirs_until(os::now_ns() + options_.lease_ms * os::kNsPerMs);
  } else if (heirs == Heirs::kNone) {
    session.expect_heirs_until(0);
  }
  return Done{.free_bytes = free_bytes_};
}

NodeReply MemoryNode::begin_session(Client& client, const Hello& hello) {
  if (client.session) return refuse(RefusalReason::kMalformed, "this connection has a session");
  SessionToken token = hello.token;
  if (token == SessionToken{}) {
    os::fill_random(std::as_writable_bytes(std::span(token)));
    auto session = NodeSession::create(*pool_, *context_, *data_cq_, token, hello.label.data());
    if (!session) return refuse(RefusalReason::kFailed, session.error().message);
    client.session = std::move(*session);
    sessions_[token] = client.session;
  } else {
    const auto found = sessions_.find(token);
    if (found == sessions_.end()) {
      return refuse(RefusalReason::kNoSession, "there is no such session; has its lease ended?");
    }
    client.session = found->second.lock();
    ISTHMUS_ASSERT(client.session);
    waiting_.erase(token);
  }
  return Welcome{.token = token,
                 .node_id = node_id_,
                 .free_bytes = draining_ ? 0 : free_bytes_.load(),
                 .slab_bytes = pool_->slab_bytes(),
                 .lease_ms = options_.lease_ms};
}

NodeReply MemoryNode::reserve(NodeSession& session, const Reserve& request) {
  if (draining_) return refuse(RefusalReason::kDraining, "it is drained: no new leases");
  Granted granted;
  while (granted.count < request.slabs) {
    const auto slab = session.take_slab();
    if (!slab) {
      if (granted.count > 0) break;
      const bool full = pool_->free_count() == 0;
      return refuse(full ? RefusalReason::kFull : RefusalReason::kFailed, slab.error().message);
    }
    granted.slabs[granted.count++] = *slab;
  }
  note_free();
  granted.free_bytes = free_bytes_;
  return granted;
}

NodeReply MemoryNode::open_channel(Client& client, const OpenChannel& request) {
  const sockaddr* local = rdma_get_local_addr(client.id.get());
  if (local == nullptr) return refuse(RefusalReason::kFailed, "the connection has no address");
  const auto end = client.session->open_channel(gid_of(*local), request.end);
  if (!end) return refuse(reason_of(end.error().code), end.error().message);
  client.channels.insert(end->qpn);
  return ChannelOpened{*end};
}

NodeReply MemoryNode::done_or_refused(const Result<void>& result) const {
  if (!result) return refuse(reason_of(result.error().code), result.error().message);
  return Done{.free_bytes = free_bytes_};
}

void MemoryNode::note_free() {
  const std::uint64_t now_free = pool_->free_count() * pool_->slab_bytes();
  if (free_bytes_.exchange(now_free) != now_free && changed_) os::signal(changed_.get());
}

MemoryNodeFacts MemoryNode::facts() const {
  return {.address = address_,
          .port = port_,
          .bytes = pool_->slab_count() * pool_->slab_bytes(),
          .free_bytes = free_bytes_,
          .draining = draining_};
}

void MemoryNode::set_draining(bool draining) {
  if (draining_.exchange(draining) != draining) os::signal(changed_.get());
}

}  // namespace isthmus::farmem
