#include "rdmacm/stream_socket.h"

#include <arpa/inet.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/log.h"
#include "os/clock.h"
#include "os/epoll.h"
#include "os/poll.h"
#include "rdmacm/endpoint.h"
#include "rdmacm/failure.h"

namespace isthmus::rdmacm {
namespace {

constexpr int kResolveTimeoutMs = 10'000;
// A completion that comes within a few microseconds is not worth a sleep, which costs 25 to 45.
constexpr std::uint64_t kSpinNs = 10'000;
// Polls that find nothing between two looks at the event channel, each of which is a system call.
constexpr unsigned kIdlePollsPerLook = 256;
constexpr std::uint64_t kReceiveTag = 1ull << 63;
constexpr std::uint8_t kMostRetries = 7;
constexpr int kPollBatch = 16;

std::unexpected<Error> not_open() { return fail_with(ENOTCONN, "use an rsocket"); }

}  // namespace

// --- Life ----------------------------------------------------------------------------------------

Result<std::shared_ptr<StreamSocket>> StreamSocket::create(Session& session, int domain) {
  Channel* const channel = ISTHMUS_TRY(session.create_channel());
  return std::shared_ptr<StreamSocket>(new StreamSocket(session, domain, channel));
}

StreamSocket::~StreamSocket() {
  release_endpoint();
  if (identifier_ != nullptr) rdma_destroy_id(identifier_);
  if (!session_.forgotten()) session_.destroy_channel(channel_);
}

Result<void> StreamSocket::make_identifier() {
  if (identifier_ != nullptr) return {};
  identifier_ = ISTHMUS_TRY(session_.create_identifier({.channel = channel_,
                                                        .context = this,
                                                        .port_space = RDMA_PS_TCP,
                                                        .qp_type = IBV_QPT_RC}));
  const auto set_flag = [&](int name, int value) {
    return rdmacm::set_option(*identifier_, 0, name, std::as_bytes(std::span{&value, 1}));
  };
  constexpr int kReuseAddress = 1;  // RDMA_OPTION_ID_REUSEADDR.
  constexpr int kFamilyOnly = 2;    // RDMA_OPTION_ID_AFONLY.
  if (options_.reuse_address) ISTHMUS_TRY_VOID(set_flag(kReuseAddress, 1));
  if (options_.v6_only) ISTHMUS_TRY_VOID(set_flag(kFamilyOnly, 1));
  return {};
}

int StreamSocket::number() const { return channel_->fd; }

bool StreamSocket::is_opening() const {
  return state_ == State::kResolving || state_ == State::kConnecting;
}

Result<void> StreamSocket::bind_to(const CmAddress& address) {
  Lock lock(mutex_);
  if (state_ != State::kFresh) return fail(ErrorCode::kInvalid, "bind comes first");
  ISTHMUS_TRY_VOID(make_identifier());
  return bind_address(*identifier_, address);
}

Result<void> StreamSocket::start_listening(int backlog) {
  Lock lock(mutex_);
  if (state_ == State::kListening) return {};
  if (state_ != State::kFresh) return fail(ErrorCode::kInvalid, "the socket is connected");
  ISTHMUS_TRY_VOID(make_identifier());
  ISTHMUS_TRY_VOID(rdmacm::start_listening(*identifier_, backlog));
  state_ = State::kListening;
  return {};
}

Result<void> StreamSocket::connect_to(const CmAddress& address) {
  Lock lock(mutex_);
  if (state_ == State::kOpen) return fail_with(EISCONN, "connect an rsocket");
  if (is_opening()) {
    handle_events();
  } else {
    if (state_ != State::kFresh) return fail(ErrorCode::kInvalid, "connect a fresh rsocket");
    ISTHMUS_TRY_VOID(make_identifier());
    const auto started = resolve_address(*identifier_, CmAddress{}, address, kResolveTimeoutMs);
    if (!started) {
      fail_connection(static_cast<int>(started.error().code));
      return started;
    }
    state_ = State::kResolving;
  }
  const auto open = wait_open(lock, 0);
  if (!open && open.error().code == kWouldBlock) {
    return fail_with(EINPROGRESS, "connect an rsocket");
  }
  return open;
}

Result<std::shared_ptr<Socket>> StreamSocket::take_request(CmAddress& peer) {
  Lock lock(mutex_);
  if (state_ != State::kListening) return fail(ErrorCode::kInvalid, "the rsocket does not listen");
  for (;;) {
    const auto event = session_.next_event(*channel_, Session::Patience::kNone);
    if (!event) {
      if (must_not_wait(0)) return fail(kWouldBlock, "no connection waits");
      sleep(lock, os::kWaitForEver);
      continue;
    }
    if ((*event)->event != RDMA_CM_EVENT_CONNECT_REQUEST) {
      session_.acknowledge(*event);
      continue;
    }
    Identifier* const request = &Identifier::of((*event)->id);
    const auto* const bytes = static_cast<const std::byte*>((*event)->param.conn.private_data);
    const std::vector<std::byte> offer(bytes, bytes + (*event)->param.conn.private_data_len);
    session_.acknowledge(*event);

    Channel* const channel = ISTHMUS_TRY(session_.create_channel());
    auto accepted =
        std::shared_ptr<StreamSocket>(new StreamSocket(session_, domain(), channel));
    accepted->options_ = options_;
    const auto answered = accepted->answer_request(request, offer);
    if (!answered) {
      ISTHMUS_LOG(kWarning, "refused a connection: %s", answered.error().message.c_str());
      continue;
    }
    peer = request->last_route.destination;
    return accepted;
  }
}

Result<void> StreamSocket::answer_request(Identifier* request,
                                          std::span<const std::byte> private_data) {
  Lock lock(mutex_);
  identifier_ = request;
  ISTHMUS_TRY_VOID(session_.migrate(*request, channel_));
  const auto answer = [&]() -> Result<void> {
    const ConnectData peer = ISTHMUS_TRY(decode_connect_data(private_data));
    ISTHMUS_TRY_VOID(make_endpoint());
    core_->open(peer);
    const auto offer = encode(core_->offer());
    rdma_conn_param parameters{};
    parameters.private_data = offer.data();
    parameters.private_data_len = offer.size();
    parameters.flow_control = 1;
    parameters.rnr_retry_count = kMostRetries;
    return accept_request(*request, &parameters);
  };
  const auto answered = answer();
  if (!answered) {
    static_cast<void>(reject_request(*request, {}, RejectReason::kConsumer));
    fail_connection(static_cast<int>(answered.error().code));
    return answered;
  }
  state_ = State::kAccepting;
  return {};
}

void StreamSocket::fail_connection(int error) {
  state_ = State::kFailed;
  failure_ = error != 0 ? error : ECONNREFUSED;
  if (core_ != nullptr) core_->close(failure_);
}

// --- The connection manager's events -----------------------------------------------------------

void StreamSocket::handle_events() {
  if (state_ == State::kListening) return;  // Requests stay for take_request.
  for (;;) {
    const auto event = session_.next_event(*channel_, Session::Patience::kNone);
    if (!event) return;
    handle_event(**event);
    session_.acknowledge(*event);
  }
}

void StreamSocket::handle_event(const rdma_cm_event& event) {
  const int error = event.status < 0 ? -event.status : event.status;
  Result<void> next;
  switch (event.event) {
    case RDMA_CM_EVENT_ADDR_RESOLVED:
      next = resolve_route(*identifier_, kResolveTimeoutMs);
      break;
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
      next = offer_connection();
      break;
    case RDMA_CM_EVENT_ESTABLISHED: {
      const auto* const bytes = static_cast<const std::byte*>(event.param.conn.private_data);
      become_open({bytes, event.param.conn.private_data_len});
      return;
    }
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE:
    case RDMA_CM_EVENT_CONNECT_ERROR:
      fail_connection(error != 0 ? error : EHOSTUNREACH);
      return;
    case RDMA_CM_EVENT_REJECTED:
      fail_connection(ECONNREFUSED);
      return;
    case RDMA_CM_EVENT_DISCONNECTED:
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
      // What the peer wrote before it left is there already.
      if (core_ != nullptr) {
        poll_completions();
        core_->close(ECONNRESET);
      }
      return;
    default:
      return;
  }
  if (!next) fail_connection(static_cast<int>(next.error().code));
}

Result<void> StreamSocket::offer_connection() {
  ISTHMUS_TRY_VOID(make_endpoint());
  const auto offer = encode(core_->offer());
  rdma_conn_param parameters{};
  parameters.private_data = offer.data();
  parameters.private_data_len = offer.size();
  parameters.flow_control = 1;
  parameters.retry_count = kMostRetries;
  parameters.rnr_retry_count = kMostRetries;
  state_ = State::kConnecting;
  return start_connecting(*identifier_, &parameters);
}

void StreamSocket::become_open(std::span<const std::byte> private_data) {
  if (state_ == State::kConnecting) {
    const auto peer = decode_connect_data(private_data);
    if (!peer) {
      ISTHMUS_LOG(kWarning, "%s", peer.error().message.c_str());
      static_cast<void>(start_disconnecting(*identifier_));
      fail_connection(EPROTO);
      return;
    }
    core_->open(*peer);
  }
  state_ = State::kOpen;
  settled_ = true;
  if (!core_->settle()) core_->close(EIO);
}

// --- Queues and memory ---------------------------------------------------------------------------

StreamSizes StreamSocket::sizes() const {
  const auto limit = static_cast<std::uint32_t>(
      std::clamp(identifier_->device->max_work_requests, 16, 0xfffe));
  constexpr std::uint32_t kSmallestQueue = 16;
  return {.send_queue = static_cast<std::uint16_t>(
              std::clamp(options_.send_queue, kSmallestQueue, limit)),
          .receive_queue = static_cast<std::uint16_t>(
              std::clamp(options_.receive_queue, kSmallestQueue, limit)),
          .send_bytes = options_.send_bytes,
          .receive_bytes = options_.receive_bytes & ~1u,
          .inline_bytes = options_.inline_bytes,
          .iomap_count = options_.iomap_count};
}

Result<void> StreamSocket::make_queues() {
  const StreamSizes wanted = sizes();
  Identifier& id = *identifier_;
  id.recv_cq_channel = ibv_create_comp_channel(id.verbs);
  if (id.recv_cq_channel == nullptr) return fail_with(errno, "make a completion channel");
  const int entries = wanted.send_queue + wanted.receive_queue;
  id.recv_cq = ibv_create_cq(id.verbs, entries, this, id.recv_cq_channel, 0);
  if (id.recv_cq == nullptr) return fail_with(errno, "make a completion queue");
  id.send_cq_channel = id.recv_cq_channel;
  id.send_cq = id.recv_cq;

  ibv_qp_init_attr attributes{};
  attributes.send_cq = attributes.recv_cq = id.recv_cq;
  attributes.qp_type = IBV_QPT_RC;
  attributes.sq_sig_all = 1;
  attributes.cap.max_send_wr = wanted.send_queue;
  attributes.cap.max_recv_wr = wanted.receive_queue;
  attributes.cap.max_send_sge = 2;
  attributes.cap.max_recv_sge = 1;
  attributes.cap.max_inline_data = wanted.inline_bytes;
  if (rdma_create_qp(&id, nullptr, &attributes) != 0) return fail_with(errno, "make a QP");
  options_.inline_bytes = attributes.cap.max_inline_data;
  return {};
}

Result<ibv_mr*> StreamSocket::register_bytes(std::span<std::byte> bytes, int access) {
  ibv_mr* const region =
      ibv_reg_mr(identifier_->pd, bytes.data(), bytes.size(), IBV_ACCESS_LOCAL_WRITE | access);
  if (region == nullptr) return fail_with(errno, "register the memory of an rsocket");
  return region;
}

Result<void> StreamSocket::register_memory() {
  const StreamSizes used = sizes();
  send_memory_.resize(used.send_bytes + StreamCore::kControlBytes);
  receive_memory_.resize(used.receive_bytes);
  lists_.resize(StreamCore::list_bytes(used));
  const auto add = [&](std::span<std::byte> bytes, int access) -> Result<ibv_mr*> {
    ibv_mr* const region = ISTHMUS_TRY(register_bytes(bytes, access));
    regions_.push_back(region);
    return region;
  };
  StreamMemory memory{.send = send_memory_.data(),
                      .receive = receive_memory_.data(),
                      .lists = lists_.data()};
  memory.send_key = ISTHMUS_TRY(add(send_memory_, 0))->lkey;
  memory.receive_key = ISTHMUS_TRY(add(receive_memory_, IBV_ACCESS_REMOTE_WRITE))->rkey;
  memory.lists_key = ISTHMUS_TRY(add(lists_, IBV_ACCESS_REMOTE_WRITE))->rkey;
  core_ = std::make_unique<StreamCore>(used, memory, static_cast<StreamPort&>(*this));
  return {};
}

Result<void> StreamSocket::make_endpoint() {
  ISTHMUS_TRY_VOID(make_queues());
  ISTHMUS_TRY_VOID(register_memory());
  for (std::uint32_t i = 0; i < sizes().receive_queue; ++i) ISTHMUS_TRY_VOID(post_receive());
  return {};
}

void StreamSocket::release_endpoint() {
  if (identifier_ == nullptr) return;
  if (identifier_->qp != nullptr) rdma_destroy_qp(identifier_);
  for (const Mapping& mapping : mappings_) ibv_dereg_mr(mapping.region);
  for (ibv_mr* region : regions_) ibv_dereg_mr(region);
  mappings_.clear();
  regions_.clear();
}

Result<void> StreamSocket::write(const StreamWrite& write) {
  ibv_send_wr request{};
  request.wr_id = write.tag;
  // SAFETY: posting reads the list and does not keep it.
  request.sg_list = const_cast<ibv_sge*>(write.segments.data());
  request.num_sge = static_cast<int>(write.segments.size());
  request.opcode = write.immediate ? IBV_WR_RDMA_WRITE_WITH_IMM : IBV_WR_RDMA_WRITE;
  request.send_flags = write.inlined ? IBV_SEND_INLINE : 0;
  request.imm_data = htonl(write.immediate.value_or(0));
  request.wr.rdma.remote_addr = write.address;
  request.wr.rdma.rkey = write.key;
  ibv_send_wr* bad = nullptr;
  const int error = ibv_post_send(identifier_->qp, &request, &bad);
  if (error != 0) return fail_with(error, "write to the peer of an rsocket");
  return {};
}

Result<void> StreamSocket::post_receive() {
  ibv_recv_wr request{};
  request.wr_id = kReceiveTag;
  ibv_recv_wr* bad = nullptr;
  const int error = ibv_post_recv(identifier_->qp, &request, &bad);
  if (error != 0) return fail_with(error, "post a receive of an rsocket");
  return {};
}

// --- Progress and waiting --------------------------------------------------------------------

void StreamSocket::poll_completions() {
  std::array<ibv_wc, kPollBatch> completions;
  int count = 0;
  bool any = false;
  do {
    count = ibv_poll_cq(identifier_->recv_cq, kPollBatch, completions.data());
    for (int i = 0; i < count; ++i) {
      const ibv_wc& completion = completions[static_cast<std::size_t>(i)];
      const bool succeeded = completion.status == IBV_WC_SUCCESS;
      if ((completion.wr_id & kReceiveTag) == 0) {
        core_->on_sent(static_cast<std::uint32_t>(completion.wr_id), succeeded);
      } else if (succeeded) {
        core_->on_received(ntohl(completion.imm_data), completion.byte_len);
        // Whoever writes to us has our answer, whether or not its RTU arrived.
        if (state_ == State::kAccepting) {
          state_ = State::kOpen;
          settled_ = true;
        }
      }
    }
    any = any || count > 0;
  } while (count == kPollBatch);
  if (!any) return;
  idle_polls_ = 0;
  if (settled_ && !core_->settle()) core_->close(EIO);
  if (somebody_sleeps_) news_.notify_all();
}

void StreamSocket::progress() {
  if (state_ == State::kOpen || state_ == State::kAccepting) poll_completions();
  const bool look = state_ != State::kOpen || ++idle_polls_ % kIdlePollsPerLook == 0;
  if (look) handle_events();
}

bool StreamSocket::take_completion_event() {
  ibv_cq* queue = nullptr;
  void* context = nullptr;
  if (ibv_get_cq_event(identifier_->recv_cq_channel, &queue, &context) != 0) return false;
  ibv_ack_cq_events(queue, 1);
  return true;
}

// One thread sleeps on the descriptors; the others on its report.
void StreamSocket::sleep(Lock& lock, std::uint64_t timeout_ns) {
  if (somebody_sleeps_) {
    news_.wait(lock);
    return;
  }
  somebody_sleeps_ = true;
  const bool has_queue = identifier_ != nullptr && identifier_->recv_cq_channel != nullptr;
  const int bell = PollWaiters::instance().enter();
  const std::array<int, 3> descriptors{channel_->fd, bell,
                                       has_queue ? identifier_->recv_cq_channel->fd : -1};
  lock.unlock();
  const auto ready = os::wait_readable(descriptors, timeout_ns);
  lock.lock();
  PollWaiters::instance().leave();
  somebody_sleeps_ = false;
  constexpr unsigned kQueueBit = 1u << 2;
  if ((ready & kQueueBit) != 0 && os::wait_readable({&descriptors[2], 1}, 0)) {
    take_completion_event();
  }
  if ((ready & 1u) != 0) handle_events();
  news_.notify_all();
}

Result<void> StreamSocket::wait_until(Lock& lock, int flags, const std::function<bool()>& ready) {
  for (;;) {
    progress();
    if (ready()) return {};
    if (must_not_wait(flags)) return fail(kWouldBlock, "nothing now");
    if (state_ == State::kOpen || state_ == State::kAccepting) {
      const std::uint64_t give_up_ns = os::now_ns() + kSpinNs;
      while (os::now_ns() < give_up_ns) {
        poll_completions();
        if (ready()) return {};
      }
      ibv_req_notify_cq(identifier_->recv_cq, 0);
      poll_completions();
      if (ready()) return {};
    }
    sleep(lock, os::kWaitForEver);
  }
}

Result<void> StreamSocket::wait_open(Lock& lock, int flags) {
  if (is_opening()) {
    ISTHMUS_TRY_VOID(wait_until(lock, flags, [&] { return !is_opening(); }));
  }
  if (state_ == State::kOpen || state_ == State::kAccepting) return {};
  if (state_ != State::kFailed) return not_open();
  return fail_with(failure_, "connect an rsocket");
}

// --- Data ----------------------------------------------------------------------------------------

Result<std::size_t> StreamSocket::receive(std::span<const iovec> into, int flags, CmAddress* from) {
  Lock lock(mutex_);
  ISTHMUS_TRY_VOID(wait_open(lock, flags));
  if (from != nullptr) *from = identifier_->last_route.destination;
  const Peek peek = (flags & MSG_PEEK) != 0 ? Peek::kYes : Peek::kNo;
  std::size_t total = 0;
  for (const iovec& segment : into) {
    std::span<std::byte> room{static_cast<std::byte*>(segment.iov_base), segment.iov_len};
    while (!room.empty()) {
      // What has arrived is taken without waiting; only the first byte, or all with WAITALL, is
      // waited for.
      const bool may_wait = total == 0 || (flags & MSG_WAITALL) != 0;
      if (!core_->has_data()) {
        const auto waited = wait_until(lock, may_wait ? flags : MSG_DONTWAIT, [&] {
          return core_->has_data() || !core_->readable();
        });
        if (!waited && total == 0) return std::unexpected(waited.error());
        if (!waited) return total;
      }
      if (!core_->has_data()) {
        if (total == 0 && core_->error() != 0) return fail_with(core_->error(), "receive");
        return total;
      }
      const std::size_t count = core_->receive(room, peek);
      total += count;
      if (peek == Peek::kYes) return total;
      room = room.subspan(count);
      if (settled_ && !core_->settle()) core_->close(EIO);
    }
  }
  return total;
}

Result<std::size_t> StreamSocket::send_piece(Lock& lock, std::span<const std::byte> data,
                                             int flags) {
  ISTHMUS_TRY_VOID(announce_mappings());
  if (!settled_ || !core_->can_send()) {
    ISTHMUS_TRY_VOID(wait_until(lock, flags, [&] {
      return !core_->writable() || (settled_ && core_->can_send());
    }));
  }
  if (!core_->writable()) return fail_with(ECONNRESET, "send");
  auto sent = core_->send(data);
  if (!sent) {
    core_->close(EIO);
    return fail_with(ECONNRESET, "send");
  }
  return sent;
}

Result<std::size_t> StreamSocket::send(std::span<const iovec> data, int flags, const CmAddress*) {
  Lock lock(mutex_);
  ISTHMUS_TRY_VOID(wait_open(lock, flags));
  std::size_t total = 0;
  for (const iovec& segment : data) {
    std::span<const std::byte> left{static_cast<const std::byte*>(segment.iov_base),
                                    segment.iov_len};
    while (!left.empty()) {
      const auto sent = send_piece(lock, left, flags);
      if (!sent && total == 0) return sent;
      if (!sent) return total;
      total += *sent;
      left = left.subspan(*sent);
    }
  }
  return total;
}

}  // namespace isthmus::rdmacm
