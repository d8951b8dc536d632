#include "attach/attach_client.h"

#include <algorithm>
#include <array>

#include "base/assert.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/event_fd.h"
#include "os/poll.h"
#include "os/process_memory.h"
#include "os/random.h"
#include "os/timer_fd.h"
#include "os/unix_socket.h"

namespace isthmus::attach {
namespace {

constexpr std::uint64_t kFirstRetryNs = 20 * os::kNsPerMs;
constexpr std::uint64_t kLongestRetryNs = 2 * os::kNsPerSecond;
constexpr std::uint64_t kTag = 0;  // All descriptors of the epoll set mean the same: look.

std::vector<GidInfo> gids_of(const GidTable& table) {
  std::vector<GidInfo> gids;
  for (const GidEntry& entry : std::span(table.entries).first(table.count)) {
    gids.push_back({.gid = wire::IpAddress::from_bytes(entry.gid),
                    .interface_name = entry.interface_name.data(),
                    .mac = entry.mac,
                    .mtu = entry.mtu});
  }
  return gids;
}

// Errors after which another attempt with the same daemon makes no sense.
bool is_final(ErrorCode code) {
  return code == ErrorCode::kInvalid || code == ErrorCode::kDenied || code == ErrorCode::kExists ||
         code == ErrorCode::kUnsupported;
}

AttachEventKind kind_of(EventKind kind) {
  switch (kind) {
    case EventKind::kRevoke: return AttachEventKind::kRevoke;
    case EventKind::kRestrict: return AttachEventKind::kRestrict;
    case EventKind::kChannel: return AttachEventKind::kChannel;
    case EventKind::kCapture: return AttachEventKind::kCapture;
    case EventKind::kClosing: return AttachEventKind::kClosing;
  }
  return AttachEventKind::kClosing;
}

// What a PeerWindow borrows.
struct NeighbourResources {
  std::unique_ptr<os::Mapping> window;
  os::Fd doorbell;
};

}  // namespace

Result<std::unique_ptr<AttachClient>> AttachClient::connect(const AttachOptions& options) {
  std::unique_ptr<AttachClient> client(new AttachClient(options));
  client->probe_word_ = os::random_u64();
  client->epoll_ = ISTHMUS_TRY(os::Epoll::create());
  client->timer_ = ISTHMUS_TRY(os::create_timer_fd());
  ISTHMUS_TRY_VOID(client->epoll_->add(client->timer_.get(), kTag));
  if (options.channel == ChannelWish::kAuto) os::allow_process_memory_of_this_process();
  ISTHMUS_TRY_VOID(client->attach(ConnectionKind::kFunction));
  return client;
}

AttachClient::~AttachClient() = default;

Result<void> AttachClient::attach(ConnectionKind kind) {
  os::Fd socket = ISTHMUS_TRY(connect_to_daemon(options_.socket_path));
  Hello hello = hello_of(kind, options_);
  // SAFETY: the address is a number for other processes, which check what they find there.
  hello.probe_address = reinterpret_cast<std::uint64_t>(&probe_word_);
  hello.probe_value = probe_word_;
  std::vector<int> fds;
  if (kind == ConnectionKind::kReattach) {
    hello.function = grant_.function;
    hello.generation = grant_.generation;
    fds = {window_.get(), doorbell_.get()};
  }
  ISTHMUS_TRY_VOID(os::send_message(socket, message_bytes(hello), fds));
  std::array<std::byte, kAttachMaxMessageBytes> buffer;
  Answer answer = ISTHMUS_TRY(receive_answer(socket, buffer));
  ISTHMUS_TRY_VOID(
      take_grant(std::span(buffer).first(answer.bytes), std::move(answer.fds), kind));
  ISTHMUS_TRY_VOID(epoll_->add(events_.get(), kTag));
  requests_ = std::move(socket);
  return {};
}

Result<void> AttachClient::take_grant(std::span<const std::byte> message, std::vector<os::Fd> fds,
                                      ConnectionKind kind) {
  const Grant grant = ISTHMUS_TRY(decode_grant(message));
  if (fds.size() != kGrantFixedFds + grant.udp_count) {
    return fail(ErrorCode::kInvalid, "attach: %zu descriptors with a grant of %u sockets",
                fds.size(), grant.udp_count);
  }
  std::vector<GidInfo> gids = gids_of(grant.gids);
  if (kind == ConnectionKind::kReattach) {
    if (grant.function != grant_.function || grant.generation != grant_.generation) {
      return fail(ErrorCode::kExists, "attach: the daemon gave back function %u instead of %u",
                  grant.function, grant_.function);
    }
    events_ = std::move(fds[2]);
    own_event_ = AttachEvent{.kind = AttachEventKind::kGids, .gids = std::move(gids)};
    return {};
  }
  ISTHMUS_TRY_VOID(os::check_shared_memory(fds[0], sizeof(rdma::Window)));
  window_mapping_ = ISTHMUS_TRY(os::Mapping::create(fds[0], sizeof(rdma::Window)));
  window_ = std::move(fds[0]);
  doorbell_ = std::move(fds[1]);
  events_ = std::move(fds[2]);
  grant_.function = grant.function;
  grant_.generation = grant.generation;
  grant_.node_guid = grant.node_guid;
  // SAFETY: the size was checked; the file holds a Window, of which every byte pattern is one.
  grant_.window = reinterpret_cast<rdma::Window*>(window_mapping_->data());
  grant_.doorbell_fd = doorbell_.get();
  grant_.gids = std::move(gids);
  for (os::Fd& socket : std::span(fds).subspan(kGrantFixedFds)) {
    grant_.udp_sockets.push_back(std::move(socket));
  }
  return {};
}

void AttachClient::lose_connection() {
  if (!requests_) return;
  requests_.reset();
  epoll_->remove(events_.get());  // A forked child may still hold it open.
  events_.reset();
  retry_delay_ns_ = kFirstRetryNs;
  os::set_timer(timer_, retry_delay_ns_);
}

bool AttachClient::come_back() {
  if (requests_) return true;
  if (closing_) return false;
  const auto attached = attach(ConnectionKind::kReattach);
  if (attached) {
    os::drain(timer_.get());
    os::set_timer(timer_, 0);
    // The event made by take_grant is not in any socket: wake the thread that takes events.
    os::set_timer(timer_, 1);
    ISTHMUS_LOG(kInfo, "function %u is attached to the restarted daemon", grant_.function);
    return true;
  }
  if (is_final(attached.error().code)) {
    ISTHMUS_LOG(kError, "function %u is lost: %s", grant_.function,
                attached.error().message.c_str());
    closing_ = true;
    own_event_ = AttachEvent{.kind = AttachEventKind::kClosing};
    os::set_timer(timer_, 1);
    return false;
  }
  retry_delay_ns_ = std::min(2 * retry_delay_ns_, kLongestRetryNs);
  os::set_timer(timer_, retry_delay_ns_);
  return false;
}

Result<PeerGrant> AttachClient::admit(const AdmitRequest& request) {
  const std::uint64_t give_up = os::now_ns() + kRestartPatienceNs;
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (come_back()) {
        auto grant = exchange_admit(request);
        if (grant || grant.error().code != ErrorCode::kClosed) return grant;
        lose_connection();
      }
      if (closing_) return fail(ErrorCode::kClosed, "this function was lost, see the log");
    }
    const std::uint64_t now = os::now_ns();
    if (now >= give_up) {
      return fail(ErrorCode::kTimedOut,
                  "no isthmusd answers at %s; the connection cannot be admitted",
                  options_.socket_path.c_str());
    }
    os::wait_readable({}, std::min(kFirstRetryNs, give_up - now));
  }
}

Result<PeerGrant> AttachClient::exchange_admit(const AdmitRequest& request) {
  const Admit message{.qpn = request.qpn,
                      .dest_qpn = request.dest_qpn,
                      .local_gid = request.local_gid.bytes(),
                      .remote_gid = request.remote_gid.bytes(),
                      .transport = request.transport};
  ISTHMUS_TRY_VOID(os::send_message(requests_, message_bytes(message), {}));
  std::array<std::byte, kAttachMaxMessageBytes> buffer;
  auto answer = receive_answer(requests_, buffer);
  if (!answer) {
    // A late answer would be taken for that of the next request.
    lose_connection();
    return std::unexpected(std::move(answer.error()));
  }
  const AdmissionReply reply =
      ISTHMUS_TRY(decode_admission(std::span(buffer).first(answer->bytes)));
  PeerGrant grant{.allowed_access = reply.allowed_access, .neighbour = nullptr};
  if (reply.has_neighbour != 0) grant.neighbour = neighbour_of(reply, std::move(answer->fds));
  return grant;
}

std::shared_ptr<rdma::PeerWindow> AttachClient::neighbour_of(const AdmissionReply& reply,
                                                             std::vector<os::Fd> fds) {
  const std::pair key{reply.function, reply.generation};
  if (auto known = neighbours_[key].lock()) return known;
  std::erase_if(neighbours_, [](const auto& item) { return item.second.expired(); });

  // The kernel decides whether we may; which number the process has for us depends on whether it
  // shares a process namespace with us or we share one with the daemon.
  const auto reaches = [&](std::int32_t process_id) {
    return process_id > 0 &&
           os::probe_process_memory(process_id, reply.probe_address, reply.probe_value);
  };
  const std::int32_t process_id = reaches(reply.process_id)       ? reply.process_id
                                  : reaches(reply.own_process_id) ? reply.own_process_id
                                                                  : 0;
  if (process_id == 0) {
    ISTHMUS_LOG(kInfo, "the kernel does not let us reach process %d; using RoCE instead",
                reply.process_id);
    return nullptr;
  }
  if (fds.size() != 2 || !os::check_shared_memory(fds[0], sizeof(rdma::Window))) return nullptr;
  auto mapping = os::Mapping::create(fds[0], sizeof(rdma::Window));
  if (!mapping) return nullptr;
  auto resources = std::make_shared<NeighbourResources>(
      NeighbourResources{std::move(*mapping), std::move(fds[1])});
  // SAFETY: as in take_grant; the resources live as long as the PeerWindow.
  auto* window = reinterpret_cast<rdma::Window*>(resources->window->data());
  const int doorbell = resources->doorbell.get();
  auto neighbour =
      std::make_shared<rdma::PeerWindow>(window, process_id, doorbell, std::move(resources));
  neighbours_[key] = neighbour;
  return neighbour;
}

void AttachClient::release(std::uint32_t qpn) {
  const std::lock_guard lock(mutex_);
  if (!requests_) return;  // The next daemon reads in the window what there is.
  const Release message{.qpn = qpn};
  const auto sent = os::send_message(requests_, message_bytes(message), {}, os::Wait::kYes);
  if (!sent) lose_connection();
}

std::optional<AttachEvent> AttachClient::next_event() {
  const std::lock_guard lock(mutex_);
  os::drain(timer_.get());
  if (!requests_) come_back();
  if (own_event_) return std::exchange(own_event_, std::nullopt);
  if (!requests_) return std::nullopt;

  std::array<std::byte, kAttachMaxMessageBytes> buffer;
  auto received = os::receive_message(events_, buffer);
  if (!received) {
    if (received.error().code == ErrorCode::kClosed) lose_connection();
    return std::nullopt;
  }
  const auto message = decode_event(std::span(buffer).first(received->bytes));
  if (!message) {
    ISTHMUS_LOG(kWarning, "%s", message.error().message.c_str());
    return std::nullopt;
  }
  if (const auto* changed = std::get_if<GidsChanged>(&*message)) {
    return AttachEvent{.kind = AttachEventKind::kGids, .gids = gids_of(changed->gids)};
  }
  const Event& event = std::get<Event>(*message);
  AttachEvent result{.kind = kind_of(event.kind),
                     .qpn = event.qpn,
                     .access = event.access,
                     .channel = static_cast<rdma::ChannelKind>(event.channel),
                     .number = event.number};
  if (!received->fds.empty()) result.capture = std::move(received->fds.front());
  if (result.kind == AttachEventKind::kClosing) closing_ = true;
  return result;
}

void AttachClient::acknowledge(const AttachEvent& event) {
  if (event.number == 0) return;
  const std::lock_guard lock(mutex_);
  if (!events_) return;
  const Acknowledge message{.number = event.number};
  const auto sent = os::send_message(events_, message_bytes(message), {});
  if (!sent) ISTHMUS_LOG(kInfo, "could not acknowledge: %s", sent.error().message.c_str());
}

void AttachClient::abandon() {
  // Without the lock: in a forked child, nobody could ever release it.
  requests_.reset();
  events_.reset();
  window_.reset();
  closing_ = true;
}

}  // namespace isthmus::attach
