#include "rdma/udp_port.h"

#include <algorithm>

#include "base/assert.h"

namespace isthmus::rdma {
namespace {

// An empty receive costs 0.2 µs, much on a path of 2 µs. So only the socket that delivered last is
// asked in every call, and one of the others in every kOthersEvery-th.
constexpr std::uint32_t kOthersEvery = 4;
constexpr std::size_t kMaxSockets = 16;

}  // namespace

Result<std::unique_ptr<UdpPort>> UdpPort::create(std::vector<os::Fd> sockets) {
  if (sockets.empty() || sockets.size() > kMaxSockets) {
    return fail(ErrorCode::kInvalid, "%zu UDP sockets for a port; 1 to %zu are possible",
                sockets.size(), kMaxSockets);
  }
  std::unique_ptr<os::Epoll> readable = ISTHMUS_TRY(os::Epoll::create());
  std::vector<std::unique_ptr<os::UdpSocket>> adopted;
  for (os::Fd& fd : sockets) {
    adopted.push_back(ISTHMUS_TRY(os::UdpSocket::adopt(std::move(fd))));
    ISTHMUS_TRY_VOID(readable->add(adopted.back()->fd(), 0));
  }
  return std::unique_ptr<UdpPort>(new UdpPort(std::move(readable), std::move(adopted)));
}

UdpPort::UdpPort(std::unique_ptr<os::Epoll> readable,
                 std::vector<std::unique_ptr<os::UdpSocket>> sockets)
    : readable_(std::move(readable)), sockets_(std::move(sockets)) {}

os::UdpSocket* UdpPort::socket_for(const OutgoingRun& run) {
  os::UdpSocket* of_family = nullptr;
  for (const auto& socket : sockets_) {
    if (socket->is_v4() != run.destination.is_v4()) continue;
    if (socket->is_wildcard() || socket->address() == run.source) return socket.get();
    of_family = socket.get();
  }
  return of_family;  // The kernel refuses a source that is not that socket's; it is counted there.
}

void UdpPort::flush(os::UdpSocket& socket) {
  socket.send(outgoing_);
  outgoing_.clear();
}

void UdpPort::send(std::span<const OutgoingRun> runs) {
  os::UdpSocket* current = nullptr;
  for (const OutgoingRun& run : runs) {
    os::UdpSocket* socket = socket_for(run);
    if (!socket) continue;  // No address of that family here: as good as lost.
    if (current && socket != current) flush(*current);
    current = socket;
    outgoing_.push_back({.source = run.source,
                         .destination = run.destination,
                         .destination_port = socket->port(),
                         .parts = run.parts,
                         .bytes = run.bytes,
                         .segment_bytes = run.segment_bytes});
  }
  if (current) flush(*current);
}

os::UdpSocket& UdpPort::receiver(std::size_t index) {
  if (index < sockets_.size()) return *sockets_[index];
  for (const Membership& membership : memberships_) {
    if (membership.socket && index-- == sockets_.size()) return *membership.socket;
  }
  return *sockets_.front();
}

bool UdpPort::receive_from(std::size_t index) {
  for (const os::ArrivedDatagram& arrived : receiver(index).receive()) {
    incoming_.push_back({.source = arrived.source,
                         .destination = arrived.destination,
                         .source_port = arrived.source_port,
                         .hop_limit = arrived.hop_limit,
                         .traffic_class = arrived.traffic_class,
                         .payload = arrived.payload});
  }
  return !incoming_.empty();
}

std::span<const IncomingDatagram> UdpPort::receive() {
  incoming_.clear();
  const std::size_t own = static_cast<std::size_t>(
      std::ranges::count_if(memberships_, [](const auto& m) { return m.socket != nullptr; }));
  const std::size_t count = sockets_.size() + own;
  if (recent_ >= count) recent_ = 0;
  const bool ask_others = ++calls_ % kOthersEvery == 0;
  if (!ask_others && receive_from(recent_)) return incoming_;
  // Also when the recent one has nothing, at most one other is asked, in turn.
  if (ask_others && count > 1) {
    turn_ = (turn_ + 1) % count;
    if (turn_ == recent_) turn_ = (turn_ + 1) % count;
    if (receive_from(turn_)) {
      recent_ = turn_;
      return incoming_;
    }
  }
  if (ask_others) receive_from(recent_);
  return incoming_;
}

void UdpPort::ask_for_hops() {
  wants_hops_ = true;
  for (const auto& socket : sockets_) socket->ask_for_hops();
}

bool UdpPort::join_by_own_socket(const wire::IpAddress& group, const wire::IpAddress& on) {
  auto socket = os::UdpSocket::open({.address = group,
                                     .port = sockets_.front()->port(),
                                     .sharing = os::PortSharing::kMulticast});
  if (!socket || !(*socket)->join(group, on) || !readable_->add((*socket)->fd(), 0)) return false;
  if (wants_hops_) (*socket)->ask_for_hops();
  memberships_.push_back({group, std::move(*socket)});
  return true;
}

bool UdpPort::join(const wire::IpAddress& group) {
  if (std::ranges::find(memberships_, group, &Membership::group) != memberships_.end()) return true;
  for (const auto& socket : sockets_) {
    if (socket->is_v4() != group.is_v4()) continue;
    if (!socket->is_wildcard()) {
      // A socket bound to one address gets nothing that is sent to a group.
      return join_by_own_socket(group, socket->address());
    }
    if (!socket->join(group)) return false;
    memberships_.push_back({group, nullptr});
    return true;
  }
  return false;
}

void UdpPort::leave(const wire::IpAddress& group) {
  const auto found = std::ranges::find(memberships_, group, &Membership::group);
  if (found == memberships_.end()) return;
  incoming_.clear();  // They may lie in the buffers of the socket that closes now.
  if (!found->socket) {
    for (const auto& socket : sockets_) {
      if (socket->is_v4() == group.is_v4()) socket->leave(group);
    }
  }
  memberships_.erase(found);
}

os::UdpCounters UdpPort::counters() const {
  os::UdpCounters sum;
  const auto add = [&sum](const os::UdpSocket& socket) {
    sum.send_failures += socket.counters().send_failures;
    sum.receive_failures += socket.counters().receive_failures;
  };
  for (const auto& socket : sockets_) add(*socket);
  for (const Membership& membership : memberships_) {
    if (membership.socket) add(*membership.socket);
  }
  return sum;
}

}  // namespace isthmus::rdma
