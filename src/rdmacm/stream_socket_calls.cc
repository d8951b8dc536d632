// The calls of a stream rsocket that are not on its data path: ending, addresses, memory mapping,
// readiness, options.

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "os/clock.h"
#include "os/epoll.h"
#include "os/poll.h"
#include "rdmacm/endpoint.h"
#include "rdmacm/failure.h"
#include "rdmacm/qp_states.h"
#include "rdmacm/stream_socket.h"

namespace isthmus::rdmacm {
namespace {

// How long a socket that is given up waits for the peer to take what was sent.
constexpr std::uint64_t kGoodbyeNs = 10 * os::kNsPerSecond;

}  // namespace

// --- Ending --------------------------------------------------------------------------------------

// What was sent, and the goodbye behind it, has arrived; or the peer does not take it.
void StreamSocket::wait_for_goodbye(Lock& lock) {
  const std::uint64_t give_up_ns = os::now_ns() + kGoodbyeNs;
  for (;;) {
    poll_completions();
    ibv_req_notify_cq(identifier_->recv_cq, 0);
    poll_completions();
    if (core_->all_sent() || !core_->is_open()) return;
    const std::uint64_t now = os::now_ns();
    if (now >= give_up_ns) return;
    sleep(lock, give_up_ns - now);
  }
}

Result<void> StreamSocket::shut_down(int how) {
  Lock lock(mutex_);
  if (state_ != State::kOpen && state_ != State::kAccepting) return {};
  if (!core_->is_open()) return {};
  if (!core_->can_control()) {
    ISTHMUS_TRY_VOID(
        wait_until(lock, 0, [&] { return core_->can_control() || !core_->is_open(); }));
    if (!core_->is_open()) return {};
  }
  const ShutWhat what = how == SHUT_RD   ? ShutWhat::kReceive
                        : how == SHUT_WR ? ShutWhat::kSend
                                         : ShutWhat::kBoth;
  const auto said = core_->shut(what);
  if (!said) core_->close(EIO);
  wait_for_goodbye(lock);
  if (!core_->is_open()) static_cast<void>(qp_to_error(*identifier_));
  return said;
}

void StreamSocket::give_up() {
  static_cast<void>(shut_down(SHUT_RDWR));
  Lock lock(mutex_);
  if (core_ != nullptr) core_->close(EBADF);
  state_ = State::kFailed;
  failure_ = EBADF;
  news_.notify_all();
  lock.unlock();
  PollWaiters::instance().notify();
}

// --- Addresses -------------------------------------------------------------------------------

Result<CmAddress> StreamSocket::local_address() {
  Lock lock(mutex_);
  CmAddress address;
  if (identifier_ != nullptr) address = identifier_->last_route.source;
  if (address.family == 0) address.family = static_cast<std::uint16_t>(domain());
  return address;
}

Result<CmAddress> StreamSocket::peer_address() {
  Lock lock(mutex_);
  if (identifier_ == nullptr || identifier_->last_route.destination.family == 0) {
    return fail_with(ENOTCONN, "name the peer of an rsocket");
  }
  return identifier_->last_route.destination;
}

// --- Mapped memory -------------------------------------------------------------------------------

Result<std::int64_t> StreamSocket::map_memory(std::span<std::byte> memory, int protection,
                                              std::int64_t offset) {
  Lock lock(mutex_);
  if (core_ == nullptr || (protection & ~PROT_WRITE) != 0) {
    return fail(ErrorCode::kInvalid, "map memory of a connected rsocket, for writing");
  }
  Mapping mapping{.memory = memory};
  int access = 0;
  if ((protection & PROT_WRITE) != 0) {
    access = IBV_ACCESS_REMOTE_WRITE;
    const auto taken = [&](std::uint32_t index) {
      return std::ranges::any_of(mappings_, [&](const Mapping& m) { return m.index == index; });
    };
    std::uint32_t index = 0;
    while (index < core_->peer_iomap_count() && taken(index)) ++index;
    if (index >= core_->peer_iomap_count()) {
      return fail(ErrorCode::kNoMemory, "the peer keeps %u mappings (RDMA_IOMAPSIZE), all in use",
                  core_->peer_iomap_count());
    }
    mapping.index = index;
  }
  mapping.region = ISTHMUS_TRY(register_bytes(memory, access));
  // SAFETY: an offset of -1 asks for the address itself as the name.
  mapping.offset = offset == -1 ? reinterpret_cast<std::int64_t>(memory.data()) : offset;
  mappings_.push_back(mapping);
  static_cast<void>(announce_mappings());
  return mapping.offset;
}

Result<void> StreamSocket::announce_mappings() {
  for (Mapping& mapping : mappings_) {
    if (!mapping.index || mapping.announced) continue;
    if (!settled_ || !core_->can_send()) return {};  // With a later send.
    // SAFETY: verbs names memory by number.
    const IomapEntry entry{
        .offset = static_cast<std::uint64_t>(mapping.offset),
        .target = {.address = reinterpret_cast<std::uint64_t>(mapping.memory.data()),
                   .key = mapping.region->rkey,
                   .length = static_cast<std::uint32_t>(mapping.memory.size())}};
    mapping.announced = true;
    ISTHMUS_TRY_VOID(core_->announce_mapping(*mapping.index, entry));
  }
  return {};
}

Result<void> StreamSocket::unmap_memory(std::span<std::byte> memory) {
  Lock lock(mutex_);
  const auto found = std::ranges::find_if(mappings_, [&](const Mapping& mapping) {
    return mapping.memory.data() == memory.data() && mapping.memory.size() == memory.size();
  });
  if (found == mappings_.end()) return fail(ErrorCode::kInvalid, "that memory is not mapped");
  ibv_dereg_mr(found->region);
  mappings_.erase(found);
  return {};
}

Result<std::size_t> StreamSocket::write_mapped(std::span<const std::byte> data,
                                               std::uint64_t offset, int flags) {
  Lock lock(mutex_);
  ISTHMUS_TRY_VOID(wait_open(lock, flags));
  ISTHMUS_TRY_VOID(announce_mappings());
  std::size_t total = 0;
  while (total < data.size()) {
    const auto waited = wait_until(lock, flags, [&] {
      return !core_->writable() || (settled_ && core_->can_send());
    });
    if (!waited && total == 0) return std::unexpected(waited.error());
    if (!waited || !core_->writable()) break;
    const auto written = core_->write_mapped(data.subspan(total), offset + total);
    if (!written) break;  // No mapping there: what was written until here counts.
    total += *written;
  }
  if (total == 0 && !core_->writable()) return fail_with(ECONNRESET, "write mapped memory");
  return total;
}

// --- Readiness -----------------------------------------------------------------------------------

short StreamSocket::ready_events(short events) {
  Lock lock(mutex_);
  if (state_ == State::kListening) {
    const bool waiting = os::wait_readable({&channel_->fd, 1}, 0);
    return static_cast<short>(waiting ? events & POLLIN : 0);
  }
  if (state_ != State::kFresh) progress();
  if (state_ == State::kFailed) return static_cast<short>((events & (POLLIN | POLLOUT)) | POLLERR);
  if (state_ != State::kOpen && state_ != State::kAccepting) return 0;
  short ready = 0;
  if (core_->has_data() || !core_->readable()) ready |= POLLIN;
  if (settled_ && core_->can_send()) ready |= POLLOUT;
  ready = static_cast<short>(ready & events);
  if (!core_->is_open()) {
    ready = static_cast<short>(ready | (core_->error() != 0 ? POLLERR : POLLHUP));
  }
  return ready;
}

void StreamSocket::arm(std::vector<int>& descriptors) {
  Lock lock(mutex_);
  descriptors.push_back(channel_->fd);
  if (state_ != State::kOpen && state_ != State::kAccepting) return;
  const int queue_fd = identifier_->recv_cq_channel->fd;
  descriptors.push_back(queue_fd);
  // An old event would end the sleep at once. Whoever sleeps on it has to hear of it otherwise.
  bool taken = false;
  while (os::wait_readable({&queue_fd, 1}, 0)) taken = take_completion_event() || taken;
  ibv_req_notify_cq(identifier_->recv_cq, 0);
  handle_events();
  if (taken) PollWaiters::instance().notify();
}

// --- Options -------------------------------------------------------------------------------------

Result<void> StreamSocket::set_option(int level, int name, std::span<const std::byte> value) {
  Lock lock(mutex_);
  ISTHMUS_TRY_VOID(rdmacm::set_option(options_, level, name, value, core_ != nullptr));
  if (identifier_ == nullptr) return {};
  constexpr int kLevelId = 0;  // RDMA_OPTION_ID; names: TOS 0, REUSEADDR 1, AFONLY 2.
  if (level == SOL_SOCKET && name == SO_REUSEADDR) {
    static_cast<void>(rdmacm::set_option(*identifier_, kLevelId, 1, value.first(sizeof(int))));
  }
  if (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) {
    return rdmacm::set_option(*identifier_, kLevelId, 2, value.first(sizeof(int)));
  }
  return {};
}

Result<socklen_t> StreamSocket::get_option(int level, int name, std::span<std::byte> value) {
  Lock lock(mutex_);
  if (level == SOL_SOCKET && (name == SO_ERROR || name == SO_TYPE)) {
    int number = type();
    if (name == SO_ERROR) {
      number = core_ != nullptr && failure_ == 0 ? core_->error() : failure_;
      failure_ = 0;
    }
    if (value.size() < sizeof number) return fail(ErrorCode::kInvalid, "no room for the option");
    std::memcpy(value.data(), &number, sizeof number);
    return static_cast<socklen_t>(sizeof number);
  }
  if (level == IPPROTO_TCP && name == TCP_INFO) {
    tcp_info info{};
    info.tcpi_state = core_ != nullptr && core_->is_open() ? TCP_ESTABLISHED : TCP_CLOSE;
    info.tcpi_snd_cwnd = options_.send_queue;
    const std::size_t bytes = std::min(value.size(), sizeof info);
    std::memcpy(value.data(), &info, bytes);
    return static_cast<socklen_t>(bytes);
  }
  return rdmacm::get_option(options_, level, name, value);
}

}  // namespace isthmus::rdmacm
