#include "os/udp_socket.h"

#include <netinet/udp.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/assert.h"
#include "os/clock.h"
#include "os/interfaces.h"
#include "os/socket_address.h"

namespace isthmus::os {
namespace {

constexpr std::size_t kRunsPerSend = 64;
constexpr std::size_t kBuffersPerReceive = 8;
constexpr std::size_t kBufferBytes = 65'536;
// Each buffer holds up to the segments of one send; newer kernels allow 128 of them.
constexpr std::size_t kDatagramsPerReceive = kBuffersPerReceive * 2 * kMaxRunSegments;
constexpr int kSocketBufferBytes = 8 << 20;  // Wanted; what the kernel allows is often less.
constexpr int kHopLimit = 64;                // For multicast too, as rxe sends.
// How long a full transmit queue may hold up the sender before the run is lost.
constexpr std::uint64_t kTransmitPatienceNs = kNsPerMs;
constexpr std::uint64_t kScopeRefreshNs = kNsPerSecond;

constexpr std::size_t kSendControlBytes =
    CMSG_SPACE(sizeof(in6_pktinfo)) + CMSG_SPACE(sizeof(std::uint16_t));
constexpr std::size_t kReceiveControlBytes = 256;

Result<void> set_option(const Fd& fd, int level, int name, int value, const char* what) {
  if (setsockopt(fd.get(), level, name, &value, sizeof value) != 0) {
    return fail_errno(errno, std::string("set ") + what + " of a UDP socket");
  }
  return {};
}

// The larger the buffers, the longer a burst that a sleeping owner survives. Root may go past the
// system's limit.
void raise_buffers(const Fd& fd) {
  const int wanted = kSocketBufferBytes;
  if (setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &wanted, sizeof wanted) != 0) {
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &wanted, sizeof wanted);
  }
  if (setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, &wanted, sizeof wanted) != 0) {
    setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUF, &wanted, sizeof wanted);
  }
}

Result<void> set_v4_options(const Fd& fd) {
  ISTHMUS_TRY_VOID(set_option(fd, IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO, "don't fragment"));
  ISTHMUS_TRY_VOID(set_option(fd, IPPROTO_IP, IP_MULTICAST_TTL, kHopLimit, "multicast hops"));
  // A datagram for a group goes to the sockets that joined it, not to every socket of the port.
  return set_option(fd, IPPROTO_IP, IP_MULTICAST_ALL, 0, "own groups only");
}

Result<void> set_v6_options(const Fd& fd) {
  ISTHMUS_TRY_VOID(set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1, "IPv6 only"));
  ISTHMUS_TRY_VOID(
      set_option(fd, IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DO, "don't fragment"));
  ISTHMUS_TRY_VOID(
      set_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, kHopLimit, "multicast hops"));
  return set_option(fd, IPPROTO_IPV6, IPV6_MULTICAST_ALL, 0, "own groups only");
}

// A socket bound to one address need not be told where its datagrams went.
void ask_for_destination(const Fd& fd, bool v4, bool wanted) {
  const int value = wanted ? 1 : 0;
  if (v4) {
    setsockopt(fd.get(), IPPROTO_IP, IP_PKTINFO, &value, sizeof value);
  } else {
    setsockopt(fd.get(), IPPROTO_IPV6, IPV6_RECVPKTINFO, &value, sizeof value);
  }
}

void ask_for_hops(const Fd& fd, bool v4, bool wanted) {
  const int value = wanted ? 1 : 0;
  for (const int option : v4 ? std::array{IP_RECVTTL, IP_RECVTOS}
                             : std::array{IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS}) {
    setsockopt(fd.get(), v4 ? IPPROTO_IP : IPPROTO_IPV6, option, &value, sizeof value);
  }
}

// The wrappers of glibc are cancellation points, which takes two atomic operations a call.
long receive_message(int fd, msghdr& header) {
  return syscall(SYS_recvmsg, fd, &header, MSG_DONTWAIT);
}
long receive_messages(int fd, std::span<mmsghdr> headers) {
  return syscall(SYS_recvmmsg, fd, headers.data(), headers.size(), MSG_DONTWAIT, nullptr);
}
// How many of them the kernel took, or -1.
long send_messages(int fd, std::span<mmsghdr> headers) {
  if (headers.size() > 1) {
    return syscall(SYS_sendmmsg, fd, headers.data(), headers.size(), MSG_DONTWAIT);
  }
  return syscall(SYS_sendmsg, fd, &headers[0].msg_hdr, MSG_DONTWAIT) < 0 ? -1 : 1;
}

Result<void> set_sharing(const Fd& fd, PortSharing sharing) {
  if (sharing == PortSharing::kNone) return {};
  ISTHMUS_TRY_VOID(set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1, "port sharing"));
  if (sharing == PortSharing::kGroup) return {};
  return set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1, "address sharing");
}

// Writes one control item behind those that are there.
template <class T>
void append_control(msghdr& header, int level, int type, const T& value) {
  auto* item = reinterpret_cast<cmsghdr*>(static_cast<char*>(header.msg_control) +
                                          header.msg_controllen);
  item->cmsg_level = level;
  item->cmsg_type = type;
  item->cmsg_len = CMSG_LEN(sizeof(T));
  std::memcpy(CMSG_DATA(item), &value, sizeof(T));
  header.msg_controllen += CMSG_SPACE(sizeof(T));
}

template <class T>
T control_value(const cmsghdr& item) {
  T value{};
  std::memcpy(&value, CMSG_DATA(&item), sizeof(T));
  return value;
}

}  // namespace

struct UdpSocket::SendBatch {
  struct Slot {
    SocketAddress destination;
    alignas(cmsghdr) std::array<char, kSendControlBytes> control;
  };
  std::array<mmsghdr, kRunsPerSend> headers;
  std::array<Slot, kRunsPerSend> slots;
  std::size_t count = 0;
  // Interfaces of link-local addresses; addresses come and go, so it is read again now and then.
  std::vector<Interface> interfaces;
  std::uint64_t interfaces_read_ns = 0;
};

struct UdpSocket::ReceiveBatch {
  std::array<mmsghdr, kBuffersPerReceive> headers;
  std::array<iovec, kBuffersPerReceive> segments;
  std::array<sockaddr_storage, kBuffersPerReceive> sources;
  struct alignas(cmsghdr) Control {
    std::array<char, kReceiveControlBytes> bytes;
  };
  std::array<Control, kBuffersPerReceive> controls;
  std::unique_ptr<std::byte[]> buffers;  // Not touched, and so not in memory, before it is used.
  std::vector<ArrivedDatagram> datagrams;
  std::uint32_t found_in_a_row = 0;  // Calls that found something.

  void prepare(std::size_t index) {
    segments[index] = {buffers.get() + index * kBufferBytes, kBufferBytes};
    msghdr& header = headers[index].msg_hdr;
    header = {};
    header.msg_name = &sources[index];
    header.msg_namelen = sizeof sources[index];
    header.msg_iov = &segments[index];
    header.msg_iovlen = 1;
    header.msg_control = controls[index].bytes.data();
    header.msg_controllen = kReceiveControlBytes;
  }
};

Result<Fd> open_udp_fd(const UdpSocketOptions& options) {
  const bool v4 = options.address.is_v4();
  Fd fd{socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!fd) return fail_errno(errno, "create a UDP socket");
  ISTHMUS_TRY_VOID(v4 ? set_v4_options(fd) : set_v6_options(fd));
  ISTHMUS_TRY_VOID(set_sharing(fd, options.sharing));
  ISTHMUS_TRY_VOID(set_option(fd, SOL_UDP, UDP_GRO, 1, "receive coalescing"));
  raise_buffers(fd);

  unsigned scope = 0;
  if (!v4 && options.address.is_link_local()) {
    for (const Interface& entry : ISTHMUS_TRY(list_interfaces())) {
      if (entry.owns(options.address)) scope = entry.index;
    }
  }
  const SocketAddress address = socket_address_of(options.address, options.port, scope);
  if (bind(fd.get(), address.generic(), address.bytes) != 0) {
    return fail_errno(errno, "bind UDP " + options.address.to_string() + " port " +
                                 std::to_string(options.port));
  }
  return fd;
}

void set_coalescing(const Fd& socket, Coalescing coalescing) {
  const int on = coalescing == Coalescing::kOn ? 1 : 0;
  setsockopt(socket.get(), SOL_UDP, UDP_GRO, &on, sizeof on);  // It was possible once: it is now.
}

Result<std::unique_ptr<UdpSocket>> UdpSocket::open(const UdpSocketOptions& options) {
  return adopt(ISTHMUS_TRY(open_udp_fd(options)));
}

Result<std::unique_ptr<UdpSocket>> UdpSocket::adopt(Fd fd) {
  sockaddr_storage name{};
  socklen_t bytes = sizeof name;
  // SAFETY: the sockets interface wants every address by the common base type.
  auto* generic = reinterpret_cast<sockaddr*>(&name);
  if (getsockname(fd.get(), generic, &bytes) != 0) {
    return fail_errno(errno, "ask for the address of a UDP socket");
  }
  if (generic->sa_family != AF_INET && generic->sa_family != AF_INET6) {
    return fail(ErrorCode::kInvalid, "the descriptor given as a UDP socket is something else");
  }
  std::unique_ptr<UdpSocket> socket{
      new UdpSocket(std::move(fd), ip_address_of(*generic), port_of(*generic))};
  // Another process may have had it before.
  ask_for_destination(socket->fd_, socket->is_v4(), socket->is_wildcard());
  os::ask_for_hops(socket->fd_, socket->is_v4(), false);
  return socket;
}

UdpSocket::UdpSocket(Fd fd, const wire::IpAddress& address, std::uint16_t port)
    : fd_(std::move(fd)),
      address_(address),
      port_(port),
      outgoing_(std::make_unique<SendBatch>()),
      incoming_(std::make_unique<ReceiveBatch>()) {
  incoming_->buffers = std::make_unique_for_overwrite<std::byte[]>(kBuffersPerReceive *
                                                                   kBufferBytes);
  incoming_->datagrams.reserve(kDatagramsPerReceive);
  for (std::size_t i = 0; i < kBuffersPerReceive; ++i) incoming_->prepare(i);
}

UdpSocket::~UdpSocket() = default;

void UdpSocket::ask_for_hops() { os::ask_for_hops(fd_, is_v4(), true); }

bool UdpSocket::is_wildcard() const { return is_v4() ? address_.v4() == 0 : address_.is_zero(); }

unsigned UdpSocket::scope_of(const wire::IpAddress& local, const wire::IpAddress& remote) {
  if (!local.is_link_local() && !remote.is_link_local() && !remote.is_multicast()) return 0;
  const std::uint64_t now = now_ns();
  const auto find = [&] {
    return std::ranges::find_if(outgoing_->interfaces,
                                [&](const Interface& entry) { return entry.owns(local); });
  };
  auto found = find();
  const bool old = outgoing_->interfaces_read_ns == 0 ||
                   now - outgoing_->interfaces_read_ns > kScopeRefreshNs;
  if (found == outgoing_->interfaces.end() && old) {
    outgoing_->interfaces_read_ns = now;
    if (auto list = list_interfaces()) outgoing_->interfaces = std::move(*list);
    found = find();
  }
  return found == outgoing_->interfaces.end() ? 0 : found->index;
}

void UdpSocket::add_to_batch(const OutgoingDatagramRun& run) {
  SendBatch& batch = *outgoing_;
  if (batch.count == kRunsPerSend) flush_batch();
  SendBatch::Slot& slot = batch.slots[batch.count];
  msghdr& header = batch.headers[batch.count++].msg_hdr;

  const unsigned scope = is_v4() ? 0 : scope_of(run.source, run.destination);
  slot.destination = socket_address_of(run.destination, run.destination_port, scope);
  slot.control.fill(0);
  header = {};
  header.msg_name = &slot.destination.storage;
  header.msg_namelen = slot.destination.bytes;
  header.msg_iov = const_cast<iovec*>(run.parts.data());  // SAFETY: sending does not write to it.
  header.msg_iovlen = run.parts.size();
  header.msg_control = slot.control.data();
  if (is_v4() && run.source.is_v4()) {
    in_pktinfo from{};
    from.ipi_spec_dst.s_addr = htonl(run.source.v4());
    append_control(header, IPPROTO_IP, IP_PKTINFO, from);
  } else if (!is_v4() && !run.source.is_zero()) {
    in6_pktinfo from{};
    std::memcpy(&from.ipi6_addr, run.source.bytes().data(), sizeof from.ipi6_addr);
    from.ipi6_ifindex = scope;
    append_control(header, IPPROTO_IPV6, IPV6_PKTINFO, from);
  }
  if (run.bytes > run.segment_bytes) {
    append_control(header, SOL_UDP, UDP_SEGMENT, static_cast<std::uint16_t>(run.segment_bytes));
  }
  if (header.msg_controllen == 0) header.msg_control = nullptr;
}

void UdpSocket::flush_batch() {
  SendBatch& batch = *outgoing_;
  std::size_t sent = 0;
  bool patient = true;  // One wait for room in each flush: a stuck interface must not stop us.
  while (sent < batch.count) {
    const long count =
        send_messages(fd_.get(), std::span(batch.headers).subspan(sent, batch.count - sent));
    if (count > 0) {
      sent += static_cast<std::size_t>(count);
      continue;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN && patient) {
      patient = false;
      const timespec limit{0, static_cast<long>(kTransmitPatienceNs)};
      pollfd item{fd_.get(), POLLOUT, 0};
      ppoll(&item, 1, &limit, nullptr);
      continue;
    }
    ++counters_.send_failures;  // The network may lose anything; the protocol above repeats it.
    ++sent;
  }
  batch.count = 0;
}

void UdpSocket::send(std::span<const OutgoingDatagramRun> runs) {
  for (const OutgoingDatagramRun& run : runs) {
    ISTHMUS_ASSERT(run.segment_bytes > 0 && run.bytes <= kMaxRunBytes &&
                   run.bytes <= run.segment_bytes * kMaxRunSegments &&
                   run.parts.size() <= kMaxRunParts);
    if (run.destination.is_v4() != is_v4()) {
      ++counters_.send_failures;
      continue;
    }
    add_to_batch(run);
  }
  flush_batch();
}

// A poll finds nothing mostly, or one answer; asking for one is cheaper than asking for many. When
// two calls in a row found something, more is likely to wait.
int UdpSocket::receive_batch() {
  ReceiveBatch& batch = *incoming_;
  int count = 0;
  if (batch.found_in_a_row >= 2) {
    count = static_cast<int>(receive_messages(fd_.get(), batch.headers));
  } else {
    const long bytes = receive_message(fd_.get(), batch.headers[0].msg_hdr);
    if (bytes >= 0) batch.headers[0].msg_len = static_cast<unsigned>(bytes);
    count = bytes >= 0 ? 1 : 0;
  }
  batch.found_in_a_row = count > 0 ? batch.found_in_a_row + 1 : 0;
  return count;
}

std::span<const ArrivedDatagram> UdpSocket::receive() {
  ReceiveBatch& batch = *incoming_;
  batch.datagrams.clear();
  const int count = receive_batch();
  for (int i = 0; i < count; ++i) {
    const auto index = static_cast<std::size_t>(i);
    take_arrived(index, batch.headers[index].msg_len);
    batch.prepare(index);
  }
  return batch.datagrams;
}

void UdpSocket::take_arrived(std::size_t index, std::size_t bytes) {
  ReceiveBatch& batch = *incoming_;
  msghdr& header = batch.headers[index].msg_hdr;
  ArrivedDatagram arrived;
  std::size_t segment_bytes = bytes;
  bool has_destination = !is_wildcard();
  if (has_destination) arrived.destination = address_;
  for (cmsghdr* item = CMSG_FIRSTHDR(&header); item; item = CMSG_NXTHDR(&header, item)) {
    const int level = item->cmsg_level;
    const int type = item->cmsg_type;
    if (level == IPPROTO_IP && type == IP_PKTINFO) {
      arrived.destination = ip_address_of(control_value<in_pktinfo>(*item).ipi_addr);
      has_destination = true;
    } else if (level == IPPROTO_IPV6 && type == IPV6_PKTINFO) {
      arrived.destination = ip_address_of(control_value<in6_pktinfo>(*item).ipi6_addr);
      has_destination = true;
    } else if ((level == IPPROTO_IP && type == IP_TTL) ||
               (level == IPPROTO_IPV6 && type == IPV6_HOPLIMIT)) {
      arrived.hop_limit = static_cast<std::uint8_t>(control_value<int>(*item));
    } else if (level == IPPROTO_IP && type == IP_TOS) {
      arrived.traffic_class = control_value<std::uint8_t>(*item);
    } else if (level == IPPROTO_IPV6 && type == IPV6_TCLASS) {
      arrived.traffic_class = static_cast<std::uint8_t>(control_value<int>(*item));
    } else if (level == SOL_UDP && type == UDP_GRO) {
      segment_bytes = static_cast<std::size_t>(control_value<int>(*item));
    }
  }
  if (!has_destination || segment_bytes == 0 || (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC))) {
    ++counters_.receive_failures;
    return;
  }
  // SAFETY: the kernel wrote an address of the socket's family there.
  const auto& source = reinterpret_cast<const sockaddr&>(batch.sources[index]);
  arrived.source = ip_address_of(source);
  arrived.source_port = port_of(source);
  const std::span<const std::byte> whole(batch.buffers.get() + index * kBufferBytes, bytes);
  for (std::size_t from = 0; from < bytes; from += segment_bytes) {
    if (batch.datagrams.size() == kDatagramsPerReceive) {
      ++counters_.receive_failures;
      return;
    }
    arrived.payload = whole.subspan(from, std::min(segment_bytes, bytes - from));
    batch.datagrams.push_back(arrived);
  }
}

Result<void> UdpSocket::join(const wire::IpAddress& group, const wire::IpAddress& on) {
  if (!group.is_multicast() || group.is_v4() != is_v4()) {
    return fail(ErrorCode::kInvalid, "%s is no group address of this socket",
                group.to_string().c_str());
  }
  const bool everywhere = on.is_zero() || (on.is_v4() && on.v4() == 0);
  int last_error = ENODEV;
  bool joined = false;
  const SocketAddress address = socket_address_of(group, 0);
  for (const Interface& entry : ISTHMUS_TRY(list_interfaces())) {
    if (!entry.is_up || (!everywhere && !entry.owns(on))) continue;
    group_req request{};
    request.gr_interface = entry.index;
    request.gr_group = address.storage;
    const int level = is_v4() ? IPPROTO_IP : IPPROTO_IPV6;
    if (setsockopt(fd_.get(), level, MCAST_JOIN_GROUP, &request, sizeof request) == 0 ||
        errno == EADDRINUSE) {  // Joined there before.
      joined = true;
    } else {
      last_error = errno;
    }
  }
  if (!joined) return fail_errno(last_error, "join multicast group " + group.to_string());
  return {};
}

void UdpSocket::leave(const wire::IpAddress& group) {
  const SocketAddress address = socket_address_of(group, 0);
  const auto interfaces = list_interfaces();
  if (!interfaces) return;
  for (const Interface& entry : *interfaces) {
    group_req request{};
    request.gr_interface = entry.index;
    request.gr_group = address.storage;
    const int level = is_v4() ? IPPROTO_IP : IPPROTO_IPV6;
    setsockopt(fd_.get(), level, MCAST_LEAVE_GROUP, &request, sizeof request);
  }
}

}  // namespace isthmus::os
