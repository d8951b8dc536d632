#include "rdmacm/datagram_rsocket.h"

#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/log.h"
#include "os/clock.h"
#include "os/epoll.h"
#include "os/poll.h"
#include "os/poll_set.h"
#include "rdmacm/endpoint.h"
#include "rdmacm/failure.h"

namespace isthmus::rdmacm {
namespace {

constexpr std::size_t kGrhBytes = 40;
constexpr std::uint32_t kLargestPacket = 4096;  // The largest MTU of a UD message.
constexpr std::uint32_t kReceiveSlotBytes = kGrhBytes + kLargestPacket;
constexpr std::uint32_t kReceiveSlots = 64;
constexpr std::uint32_t kSendSlots = 64;
constexpr std::size_t kLargestUdp = 65507;
constexpr std::uint64_t kReceiveTag = 1ull << 63;
constexpr std::uint64_t kGoodbyeNs = os::kNsPerSecond;
constexpr std::uint64_t kSpinNs = 10'000;  // As a stream's.
constexpr std::uint8_t kHopLimit = 64;
constexpr int kPollBatch = 16;
// Datagrams taken from the UDP socket in one go: others want their turn.
constexpr int kUdpBatch = 32;
// Peers that one socket talks to; a peer past it is served by UDP alone.
constexpr std::size_t kMostDestinations = 65536;

os::DatagramAddress to_kernel(const CmAddress& address) {
  os::DatagramAddress result;
  // SAFETY: the sockets interface wants every address by the common base type.
  result.bytes = static_cast<socklen_t>(
      attach::write_sockaddr(address, reinterpret_cast<sockaddr*>(&result.storage)));
  return result;
}

Result<CmAddress> from_kernel(const os::DatagramAddress& address) {
  // SAFETY: as above.
  return attach::cm_address_of(reinterpret_cast<const sockaddr*>(&address.storage), address.bytes);
}

bool is_any(const CmAddress& address) {
  static constexpr std::array<std::uint8_t, 16> kAny6{};
  static constexpr std::array<std::uint8_t, 16> kAny4{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return address.ip == kAny6 || address.ip == kAny4;
}

std::size_t total_bytes(std::span<const iovec> parts) {
  std::size_t total = 0;
  for (const iovec& part : parts) total += part.iov_len;
  return total;
}

}  // namespace

Result<std::shared_ptr<DatagramRsocket>> DatagramRsocket::create(Session& session, int domain) {
  ISTHMUS_TRY_VOID(session.ensure_daemon());
  auto udp = ISTHMUS_TRY(os::DatagramSocket::create(domain));
  return std::shared_ptr<DatagramRsocket>(
      new DatagramRsocket(session, domain, std::move(udp)));
}

DatagramRsocket::~DatagramRsocket() {
  for (auto& [key, destination] : destinations_) {
    if (destination.handle != nullptr) ibv_destroy_ah(destination.handle);
  }
  for (auto& [key, port] : ports_) close_port(*port);
}

// --- Ports -----------------------------------------------------------------------------------

std::byte* DatagramRsocket::receive_slot(Port& port, std::uint32_t slot) const {
  return port.memory.data() + slot * kReceiveSlotBytes;
}

std::byte* DatagramRsocket::send_slot(Port& port, std::uint32_t slot) const {
  return port.memory.data() + kReceiveSlots * kReceiveSlotBytes + slot * kLargestPacket;
}

Result<void> DatagramRsocket::make_queues(Port& port) {
  Identifier& id = *port.identifier;
  id.recv_cq_channel = id.send_cq_channel = ibv_create_comp_channel(id.verbs);
  if (id.recv_cq_channel == nullptr) return fail_with(errno, "make a completion channel");
  id.recv_cq = id.send_cq =
      ibv_create_cq(id.verbs, kReceiveSlots + kSendSlots, nullptr, id.recv_cq_channel, 0);
  if (id.recv_cq == nullptr) return fail_with(errno, "make a completion queue");
  ibv_qp_init_attr attributes{};
  attributes.send_cq = attributes.recv_cq = id.recv_cq;
  attributes.qp_type = IBV_QPT_UD;
  attributes.sq_sig_all = 1;
  attributes.cap = {.max_send_wr = kSendSlots,
                    .max_recv_wr = kReceiveSlots,
                    .max_send_sge = 1,
                    .max_recv_sge = 1,
                    .max_inline_data = options_.inline_bytes};
  if (rdma_create_qp(&id, nullptr, &attributes) != 0) return fail_with(errno, "make a QP");
  port.inline_bytes = attributes.cap.max_inline_data;
  return {};
}

Result<void> DatagramRsocket::open_port(Port& port) {
  port.identifier = ISTHMUS_TRY(session_.create_identifier(
      {.channel = nullptr, .context = this, .port_space = RDMA_PS_UDP, .qp_type = IBV_QPT_UD}));
  CmAddress address = port.address;
  address.port = 0;  // Peers find this QP by its number, so the id needs no port of its own.
  ISTHMUS_TRY_VOID(bind_address(*port.identifier, address));
  if (port.identifier->device == nullptr) {
    return fail_with(ENODEV, "find the RDMA device of a local address");
  }
  ISTHMUS_TRY_VOID(make_queues(port));
  port.memory.resize(kReceiveSlots * kReceiveSlotBytes + kSendSlots * kLargestPacket);
  port.region = ibv_reg_mr(port.identifier->pd, port.memory.data(), port.memory.size(),
                           IBV_ACCESS_LOCAL_WRITE);
  if (port.region == nullptr) return fail_with(errno, "register the memory of an rsocket");
  ibv_port_attr facts{};
  if (ibv_query_port(port.identifier->verbs, port.identifier->port_num, &facts) != 0) {
    return fail_with(errno, "ask for the MTU of a port");
  }
  port.largest_bytes = std::min(kLargestPacket, 128u << facts.active_mtu);
  for (std::uint32_t slot = 0; slot < kReceiveSlots; ++slot) post_receive(port, slot);
  for (std::uint32_t slot = 0; slot < kSendSlots; ++slot) port.free_sends.push_back(slot);
  ibv_req_notify_cq(port.identifier->recv_cq, 0);
  return {};
}

void DatagramRsocket::close_port(Port& port) {
  if (port.identifier == nullptr) return;
  if (port.identifier->qp != nullptr) rdma_destroy_qp(port.identifier);
  if (port.region != nullptr) ibv_dereg_mr(port.region);
  rdma_destroy_id(port.identifier);
  port.identifier = nullptr;
}

Result<CmAddress> DatagramRsocket::bound_address() {
  const os::DatagramAddress name = ISTHMUS_TRY(udp_->local_address());
  const CmAddress local = ISTHMUS_TRY(from_kernel(name));
  if (local.port != 0) return local;
  CmAddress any;
  any.family = static_cast<std::uint16_t>(domain());
  if (domain() == AF_INET) any.ip[10] = any.ip[11] = 0xff;
  ISTHMUS_TRY_VOID(udp_->set_local_address(to_kernel(any)));
  const os::DatagramAddress chosen = ISTHMUS_TRY(udp_->local_address());
  return from_kernel(chosen);
}

Result<DatagramRsocket::Port*> DatagramRsocket::port_at(const CmAddress& local) {
  std::unique_ptr<Port>& place = ports_[local.ip];
  if (place != nullptr) return place.get();
  auto port = std::make_unique<Port>();
  port->address = local;
  const auto opened = open_port(*port);
  if (!opened) {
    close_port(*port);
    ports_.erase(local.ip);
    return std::unexpected(opened.error());
  }
  place = std::move(port);
  return place.get();
}

Result<DatagramRsocket::Destination*> DatagramRsocket::destination_of(const CmAddress& address) {
  const AddressKey key{address.ip, address.port};
  if (const auto found = destinations_.find(key); found != destinations_.end()) {
    return &found->second;
  }
  if (destinations_.size() >= kMostDestinations) {
    return fail(ErrorCode::kNoMemory, "an rsocket has %zu peers, no more fit", kMostDestinations);
  }
  CmAddress local = ISTHMUS_TRY(bound_address());
  if (is_any(local)) {
    const std::uint16_t port = local.port;
    const auto source = ISTHMUS_TRY(os::DatagramSocket::source_towards(to_kernel(address)));
    local = ISTHMUS_TRY(from_kernel(source));
    local.port = port;
  }
  Port* const port = ISTHMUS_TRY(port_at(local));
  Destination& destination = destinations_[key];
  destination.address = address;
  destination.port = port;
  return &destination;
}

// From now on datagrams go to that QP.
Result<void> DatagramRsocket::introduce(Destination& destination, std::uint32_t qpn) {
  if (destination.handle != nullptr && destination.qpn == qpn) return {};
  const Identifier& id = *destination.port->identifier;
  ibv_ah_attr attributes{};
  attributes.is_global = 1;
  std::memcpy(attributes.grh.dgid.raw, destination.address.ip.data(), 16);
  attributes.grh.sgid_index = id.last_route.gid_index;
  attributes.grh.hop_limit = kHopLimit;
  attributes.port_num = id.port_num;
  ibv_ah* const handle = ibv_create_ah(id.pd, &attributes);
  if (handle == nullptr) return fail_with(errno, "make an address handle");
  if (destination.handle != nullptr) ibv_destroy_ah(destination.handle);
  destination.handle = handle;
  destination.qpn = qpn;
  return {};
}

// --- Moving datagrams --------------------------------------------------------------------------

void DatagramRsocket::post_receive(Port& port, std::uint32_t slot) {
  // SAFETY: verbs names memory by number.
  ibv_sge segment{.addr = reinterpret_cast<std::uint64_t>(receive_slot(port, slot)),
                  .length = kReceiveSlotBytes,
                  .lkey = port.region->lkey};
  ibv_recv_wr request{};
  request.wr_id = kReceiveTag | slot;
  request.sg_list = &segment;
  request.num_sge = 1;
  ibv_recv_wr* bad = nullptr;
  ibv_post_recv(port.identifier->qp, &request, &bad);
}

void DatagramRsocket::keep(const CmAddress& from, std::span<const std::byte> bytes) {
  // As UDP: what does not fit is lost.
  if (received_bytes_ + bytes.size() > options_.receive_bytes) return;
  received_bytes_ += bytes.size();
  received_.push_back({.from = from, .bytes = {bytes.begin(), bytes.end()}});
}

void DatagramRsocket::take_message(Port& port, std::uint32_t slot, std::uint32_t bytes) {
  if (bytes >= kGrhBytes && bytes <= kReceiveSlotBytes) {
    const std::span message{receive_slot(port, slot) + kGrhBytes, bytes - kGrhBytes};
    const auto decoded = decode_source(message);
    if (decoded) keep(decoded->source, message.subspan(decoded->header_bytes));
  }
  post_receive(port, slot);
}

void DatagramRsocket::poll_port(Port& port) {
  std::array<ibv_wc, kPollBatch> completions;
  int count = 0;
  do {
    count = ibv_poll_cq(port.identifier->recv_cq, kPollBatch, completions.data());
    for (int i = 0; i < count; ++i) {
      const ibv_wc& completion = completions[static_cast<std::size_t>(i)];
      const auto slot = static_cast<std::uint32_t>(completion.wr_id);
      if ((completion.wr_id & kReceiveTag) == 0) {
        port.free_sends.push_back(slot);
      } else if (completion.status == IBV_WC_SUCCESS) {
        take_message(port, slot, completion.byte_len);
      }
    }
  } while (count == kPollBatch);
}

void DatagramRsocket::read_udp() {
  if (udp_buffer_.empty()) udp_buffer_.resize(kLargestUdp);
  for (int i = 0; i < kUdpBatch; ++i) {
    os::DatagramAddress sender;
    const auto count = udp_->receive(udp_buffer_, sender);
    if (!count) return;
    const auto from = from_kernel(sender);
    const std::span datagram = std::span{udp_buffer_}.first(*count);
    const auto decoded = decode_introduction(datagram);
    if (!from || !decoded) continue;
    const auto destination = destination_of(*from);
    if (destination) {
      if (const auto known = introduce(**destination, decoded->introduction.qpn); !known) {
        ISTHMUS_LOG(kDebug, "a peer stays with UDP: %s", known.error().message.c_str());
      }
    }
    if (decoded->introduction.kind != IntroductionKind::kData) continue;
    if (destination) static_cast<void>(send_by_udp(**destination, {}, IntroductionKind::kControl));
    keep(*from, datagram.subspan(decoded->header_bytes));
  }
}

void DatagramRsocket::progress() {
  for (auto& [key, port] : ports_) poll_port(*port);
  read_udp();
}

Result<void> DatagramRsocket::send_by_udp(Destination& destination, std::span<const iovec> data,
                                          IntroductionKind kind) {
  const Port& port = *destination.port;
  const HeaderBytes header = encode_introduction({.kind = kind,
                                                  .qpn = port.identifier->qp->qp_num,
                                                  .address = port.address});
  std::vector<iovec> parts;
  // SAFETY: sending reads only.
  parts.push_back({.iov_base = const_cast<std::byte*>(header.bytes.data()),
                   .iov_len = header.count});
  parts.insert(parts.end(), data.begin(), data.end());
  return udp_->send_to(to_kernel(destination.address), parts);
}

Result<void> DatagramRsocket::send_by_qp(Destination& destination, std::span<const iovec> data,
                                         std::size_t bytes) {
  Port& port = *destination.port;
  const HeaderBytes header = encode_source(port.address);
  const std::uint32_t slot = port.free_sends.back();
  std::byte* to = send_slot(port, slot);
  // SAFETY: verbs names memory by number.
  ibv_sge segment{.addr = reinterpret_cast<std::uint64_t>(to),
                  .length = static_cast<std::uint32_t>(header.count + bytes),
                  .lkey = port.region->lkey};
  std::memcpy(to, header.bytes.data(), header.count);
  to += header.count;
  for (const iovec& part : data) {
    std::memcpy(to, part.iov_base, part.iov_len);
    to += part.iov_len;
  }
  ibv_send_wr request{};
  request.wr_id = slot;
  request.sg_list = &segment;
  request.num_sge = 1;
  request.opcode = IBV_WR_SEND;
  request.send_flags = segment.length <= port.inline_bytes ? IBV_SEND_INLINE : 0;
  request.wr.ud.ah = destination.handle;
  request.wr.ud.remote_qpn = destination.qpn;
  request.wr.ud.remote_qkey = RDMA_UDP_QKEY;
  ibv_send_wr* bad = nullptr;
  const int error = ibv_post_send(port.identifier->qp, &request, &bad);
  if (error != 0) return fail_with(error, "send a datagram");
  port.free_sends.pop_back();
  return {};
}

// --- Waiting -----------------------------------------------------------------------------------

std::vector<int> DatagramRsocket::descriptors() const {
  std::vector<int> all{udp_->fd()};
  for (const auto& [key, port] : ports_) all.push_back(port->identifier->recv_cq_channel->fd);
  return all;
}

void DatagramRsocket::arm_ports() {
  bool taken = false;
  for (auto& [key, port] : ports_) {
    const int fd = port->identifier->recv_cq_channel->fd;
    while (os::wait_readable({&fd, 1}, 0)) {
      ibv_cq* queue = nullptr;
      void* context = nullptr;
      if (ibv_get_cq_event(port->identifier->recv_cq_channel, &queue, &context) != 0) break;
      ibv_ack_cq_events(queue, 1);
      taken = true;
    }
    ibv_req_notify_cq(port->identifier->recv_cq, 0);
  }
  if (taken) PollWaiters::instance().notify();
}

Result<void> DatagramRsocket::wait_until(Lock& lock, int flags, std::uint64_t timeout_ns,
                                         const std::function<bool()>& ready) {
  const bool for_ever = timeout_ns == os::kWaitForEver;
  const std::uint64_t give_up_ns = for_ever ? os::kWaitForEver : os::now_ns() + timeout_ns;
  for (;;) {
    progress();
    if (ready()) return {};
    if (must_not_wait(flags)) return fail(kWouldBlock, "nothing now");
    if (given_up_) return fail_with(EBADF, "wait on an rsocket");
    const std::uint64_t now = os::now_ns();
    if (now >= give_up_ns) return fail(ErrorCode::kTimedOut, "wait on an rsocket");
    while (os::now_ns() < now + kSpinNs) {
      for (auto& [key, port] : ports_) poll_port(*port);
      if (ready()) return {};
    }
    const int bell = PollWaiters::instance().enter();
    arm_ports();
    progress();
    if (!ready()) {
      std::vector<pollfd> list{{.fd = bell, .events = POLLIN, .revents = 0}};
      for (const int fd : descriptors()) list.push_back({.fd = fd, .events = POLLIN, .revents = 0});
      lock.unlock();
      static_cast<void>(os::poll_set(list, for_ever ? os::kWaitForEver : give_up_ns - now));
      lock.lock();
    }
    PollWaiters::instance().leave();
  }
}

bool DatagramRsocket::all_sent() const {
  return std::ranges::all_of(
      ports_, [](const auto& entry) { return entry.second->free_sends.size() == kSendSlots; });
}

// --- The calls of a socket -----------------------------------------------------------------------

Result<void> DatagramRsocket::bind_to(const CmAddress& address) {
  Lock lock(mutex_);
  ISTHMUS_TRY_VOID(udp_->set_local_address(to_kernel(address)));
  if (is_any(address)) return {};
  const CmAddress local = ISTHMUS_TRY(bound_address());
  return port_at(local) ? Result<void>{} : fail_with(EADDRNOTAVAIL, "bind an rsocket");
}

Result<void> DatagramRsocket::connect_to(const CmAddress& address) {
  Lock lock(mutex_);
  static_cast<void>(ISTHMUS_TRY(destination_of(address)));
  peer_ = std::make_unique<CmAddress>(address);
  return {};
}

void DatagramRsocket::give_up() {
  Lock lock(mutex_);
  static_cast<void>(wait_until(lock, 0, kGoodbyeNs, [&] { return all_sent(); }));
  given_up_ = true;
  lock.unlock();
  PollWaiters::instance().notify();
}

Result<std::size_t> DatagramRsocket::receive(std::span<const iovec> into, int flags,
                                             CmAddress* from) {
  Lock lock(mutex_);
  if (received_.empty()) {
    ISTHMUS_TRY_VOID(
        wait_until(lock, flags, os::kWaitForEver, [&] { return !received_.empty(); }));
  }
  const Datagram& datagram = received_.front();
  std::size_t given = 0;
  for (const iovec& part : into) {
    const std::size_t count = std::min(part.iov_len, datagram.bytes.size() - given);
    if (count != 0) std::memcpy(part.iov_base, datagram.bytes.data() + given, count);
    given += count;
  }
  if (from != nullptr) *from = datagram.from;
  if ((flags & MSG_PEEK) == 0) {
    received_bytes_ -= datagram.bytes.size();
    received_.pop_front();
  }
  return given;
}

Result<std::size_t> DatagramRsocket::send(std::span<const iovec> data, int flags,
                                          const CmAddress* to) {
  Lock lock(mutex_);
  if (to == nullptr) to = peer_.get();
  if (to == nullptr) return fail_with(EDESTADDRREQ, "send a datagram");
  Destination* const destination = ISTHMUS_TRY(destination_of(*to));
  const std::size_t bytes = total_bytes(data);
  if (destination->handle == nullptr) progress();  // Its introduction may have arrived.
  Port& port = *destination->port;
  const bool fits = encode_source(port.address).count + bytes <= port.largest_bytes;
  if (destination->handle == nullptr || !fits) {
    ISTHMUS_TRY_VOID(send_by_udp(*destination, data, IntroductionKind::kData));
    return bytes;
  }
  if (port.free_sends.empty()) poll_port(port);
  if (port.free_sends.empty()) {
    ISTHMUS_TRY_VOID(wait_until(lock, flags, os::kWaitForEver,
                                [&] { return !port.free_sends.empty(); }));
  }
  ISTHMUS_TRY_VOID(send_by_qp(*destination, data, bytes));
  return bytes;
}

Result<CmAddress> DatagramRsocket::local_address() {
  const os::DatagramAddress name = ISTHMUS_TRY(udp_->local_address());
  return from_kernel(name);
}

Result<CmAddress> DatagramRsocket::peer_address() {
  Lock lock(mutex_);
  if (peer_ == nullptr) return fail_with(ENOTCONN, "name the peer of an rsocket");
  return *peer_;
}

short DatagramRsocket::ready_events(short events) {
  Lock lock(mutex_);
  if (received_.empty() || (events & POLLOUT) != 0) progress();
  const bool room = std::ranges::all_of(
      ports_, [](const auto& entry) { return !entry.second->free_sends.empty(); });
  const int ready = (received_.empty() ? 0 : POLLIN) | (room ? POLLOUT : 0);
  return static_cast<short>(given_up_ ? POLLNVAL : ready & events);
}

void DatagramRsocket::arm(std::vector<int>& list) {
  Lock lock(mutex_);
  arm_ports();
  const std::vector<int> own = descriptors();
  list.insert(list.end(), own.begin(), own.end());
}

Result<void> DatagramRsocket::set_option(int level, int name, std::span<const std::byte> value) {
  Lock lock(mutex_);
  const bool opened = !ports_.empty();
  if (level == SOL_RDMA) return rdmacm::set_option(options_, level, name, value, opened);
  ISTHMUS_TRY_VOID(udp_->set_option(level, name, value));
  static_cast<void>(rdmacm::set_option(options_, level, name, value, opened));
  return {};
}

Result<socklen_t> DatagramRsocket::get_option(int level, int name, std::span<std::byte> value) {
  Lock lock(mutex_);
  const bool ours = level == SOL_RDMA ||
                    (level == SOL_SOCKET && (name == SO_RCVBUF || name == SO_SNDBUF));
  if (ours) return rdmacm::get_option(options_, level, name, value);
  return udp_->get_option(level, name, value);
}

}  // namespace isthmus::rdmacm
