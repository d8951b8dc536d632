#include "os/packet_socket.h"

#include <arpa/inet.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "base/assert.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/interfaces.h"

namespace isthmus::os {
namespace {

constexpr std::size_t kFramesPerSend = 32;
constexpr std::size_t kFramesPerReceive = 16;
constexpr std::size_t kVlanTagBytes = 4;   // Its type and the tag.
constexpr std::size_t kAddressBytes = 12;  // Two Ethernet addresses, before a VLAN tag.
// The kernel may have joined arriving segments to the most that IP allows.
constexpr std::size_t kBufferBytes = 66 * 1024;
constexpr int kSocketBufferBytes = 8 << 20;  // Wanted; what the kernel allows is often less.
// How long a full transmit queue may hold up the sender before the frame is lost.
constexpr std::uint64_t kTransmitPatienceNs = kNsPerMs;
// On frames of ours inside this kernel; any number that nobody else is likely to choose.
constexpr std::uint32_t kOwnMark = 0x1574'4d05;

Result<void> set_filter(const Fd& fd, bool is_loopback) {
  constexpr std::uint32_t kMark = static_cast<std::uint32_t>(SKF_AD_OFF + SKF_AD_MARK);
  constexpr std::uint32_t kKind = static_cast<std::uint32_t>(SKF_AD_OFF + SKF_AD_PKTTYPE);
  // Jumps count instructions to skip: when the test holds, and when not.
  std::array<sock_filter, 6> program{{
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kMark),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, kOwnMark, 2, 0),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, kKind),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
      BPF_STMT(BPF_RET | BPF_K, 0),
  }};
  if (is_loopback) program[1].jt = 0;
  const sock_fprog filter{.len = program.size(), .filter = program.data()};
  if (setsockopt(fd.get(), SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) != 0) {
    return fail_errno(errno, "set the filter of a packet socket");
  }
  return {};
}

Result<void> prepare_receiver(const Fd& fd, bool is_loopback) {
  ISTHMUS_TRY_VOID(set_filter(fd, is_loopback));
  const int yes = 1;
  if (setsockopt(fd.get(), SOL_PACKET, PACKET_AUXDATA, &yes, sizeof yes) != 0) {
    return fail_errno(errno, "ask for the VLAN tags of a packet socket");
  }
  const int wanted = kSocketBufferBytes;
  if (setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &wanted, sizeof wanted) != 0) {
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUF, &wanted, sizeof wanted);
  }
  return {};
}

void prepare_sender(const Fd& fd) {
  const std::uint32_t mark = kOwnMark;
  if (setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) {
    ISTHMUS_LOG(kInfo, "raw Ethernet frames do not reach other programs of this host: set their "
                "mark: %s", errno_text(errno));
  }
}

Result<Interface> find_interface(const std::string& name) {
  for (Interface& entry : ISTHMUS_TRY(list_interfaces())) {
    if (entry.name == name) return std::move(entry);
  }
  return fail(ErrorCode::kNotFound, "no network interface %s in this network namespace",
              name.c_str());
}

}  // namespace

struct PacketSocket::ReceiveBatch {
  struct alignas(cmsghdr) Control {
    std::array<char, CMSG_SPACE(sizeof(tpacket_auxdata))> bytes;
  };
  std::array<mmsghdr, kFramesPerReceive> headers;
  std::array<iovec, kFramesPerReceive> segments;
  std::array<Control, kFramesPerReceive> controls;
  std::unique_ptr<std::byte[]> buffers;  // Not touched, and so not in memory, before it is used.
  std::vector<std::span<const std::byte>> frames;

  // Of kBufferBytes, the first kVlanTagBytes of them left free.
  std::byte* buffer(std::size_t index) { return buffers.get() + index * kBufferBytes; }

  void prepare(std::size_t index) {
    segments[index] = {buffer(index) + kVlanTagBytes, kBufferBytes - kVlanTagBytes};
    msghdr& header = headers[index].msg_hdr;
    header = {};
    header.msg_iov = &segments[index];
    header.msg_iovlen = 1;
    header.msg_control = controls[index].bytes.data();
    header.msg_controllen = controls[index].bytes.size();
  }
};

Result<std::unique_ptr<PacketSocket>> PacketSocket::open(const std::string& interface_name,
                                                         PacketRole role) {
  const Interface entry = ISTHMUS_TRY(find_interface(interface_name));
  // Protocol 0: hears nothing before it is bound, so that nothing passes the filter by.
  Fd fd{socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
  if (!fd && errno == EPERM) {
    return fail(ErrorCode::kDenied,
                "raw Ethernet on %s needs CAP_NET_RAW: run as root or grant it to the program",
                interface_name.c_str());
  }
  if (!fd) return fail_errno(errno, "create a packet socket");
  const bool receives = role == PacketRole::kReceiver;
  if (receives) {
    ISTHMUS_TRY_VOID(prepare_receiver(fd, entry.is_loopback));
  } else {
    prepare_sender(fd);
  }
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = receives ? htons(ETH_P_ALL) : std::uint16_t{0};
  address.sll_ifindex = static_cast<int>(entry.index);
  // SAFETY: the sockets interface wants every address by the common base type.
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return fail_errno(errno, "bind a packet socket to " + interface_name);
  }
  return std::unique_ptr<PacketSocket>(new PacketSocket(std::move(fd), role));
}

PacketSocket::PacketSocket(Fd fd, PacketRole role) : fd_(std::move(fd)) {
  if (role == PacketRole::kSender) return;
  incoming_ = std::make_unique<ReceiveBatch>();
  incoming_->buffers =
      std::make_unique_for_overwrite<std::byte[]>(kFramesPerReceive * kBufferBytes);
  incoming_->frames.reserve(kFramesPerReceive);
  for (std::size_t i = 0; i < kFramesPerReceive; ++i) incoming_->prepare(i);
}

PacketSocket::~PacketSocket() = default;

void PacketSocket::send(std::span<const ScatteredFrame> frames) {
  std::array<mmsghdr, kFramesPerSend> headers;
  bool patient = true;  // One wait for room in each call: a stuck interface must not stop us.
  while (!frames.empty()) {
    const std::size_t batch = std::min(frames.size(), kFramesPerSend);
    for (std::size_t i = 0; i < batch; ++i) {
      headers[i] = {};
      // SAFETY: sendmmsg does not write through the pointer.
      headers[i].msg_hdr.msg_iov = const_cast<iovec*>(frames[i].data());
      headers[i].msg_hdr.msg_iovlen = frames[i].size();
    }
    const int count =
        sendmmsg(fd_.get(), headers.data(), static_cast<unsigned>(batch), MSG_DONTWAIT);
    if (count > 0) {
      frames = frames.subspan(static_cast<std::size_t>(count));
    } else if (errno == EINTR) {
      continue;
    } else if ((errno == EAGAIN || errno == ENOBUFS) && patient) {
      patient = false;
      const timespec limit{0, static_cast<long>(kTransmitPatienceNs)};
      pollfd item{fd_.get(), POLLOUT, 0};
      ppoll(&item, 1, &limit, nullptr);
    } else {
      ++counters_.send_failures;
      frames = frames.subspan(1);
    }
  }
}

std::span<const std::span<const std::byte>> PacketSocket::receive() {
  ISTHMUS_ASSERT(incoming_ != nullptr);
  ReceiveBatch& batch = *incoming_;
  batch.frames.clear();
  const int count =
      recvmmsg(fd_.get(), batch.headers.data(), kFramesPerReceive, MSG_DONTWAIT, nullptr);
  for (int i = 0; i < count; ++i) {
    const auto index = static_cast<std::size_t>(i);
    take_arrived(index, batch.headers[index].msg_len);
    batch.prepare(index);
  }
  return batch.frames;
}

void PacketSocket::take_arrived(std::size_t index, std::size_t bytes) {
  ReceiveBatch& batch = *incoming_;
  msghdr& header = batch.headers[index].msg_hdr;
  if ((header.msg_flags & MSG_TRUNC) || bytes < sizeof(ether_header)) {
    ++counters_.receive_failures;
    return;
  }
  std::byte* frame = batch.buffer(index) + kVlanTagBytes;
  for (cmsghdr* item = CMSG_FIRSTHDR(&header); item; item = CMSG_NXTHDR(&header, item)) {
    if (item->cmsg_level != SOL_PACKET || item->cmsg_type != PACKET_AUXDATA) continue;
    tpacket_auxdata auxiliary;
    std::memcpy(&auxiliary, CMSG_DATA(item), sizeof auxiliary);
    if (!(auxiliary.tp_status & TP_STATUS_VLAN_VALID)) continue;
    const bool has_type = auxiliary.tp_status & TP_STATUS_VLAN_TPID_VALID;
    const std::array<std::uint16_t, 2> tag{
        htons(has_type ? auxiliary.tp_vlan_tpid : std::uint16_t{ETHERTYPE_VLAN}),
        htons(auxiliary.tp_vlan_tci)};
    static_assert(sizeof tag == kVlanTagBytes);
    frame -= kVlanTagBytes;
    bytes += kVlanTagBytes;
    std::memmove(frame, frame + kVlanTagBytes, kAddressBytes);
    std::memcpy(frame + kAddressBytes, tag.data(), sizeof tag);
    break;
  }
  batch.frames.emplace_back(frame, bytes);
}

}  // namespace isthmus::os
