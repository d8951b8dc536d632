// AttachClient: one virtual function, from the side of the process that uses it.
//
// Life: connect() asks the daemon for a function and gets its window, doorbell, sockets and GIDs.
// Each connected QP is admitted before it changes to RTR and released when it is gone. The owner
// waits for event_fd() and calls next_event() when it is readable; that also brings the client
// back to a daemon that was killed and started again: the function, its number and its QPs stay
// what they were, and meanwhile data flows. Destruction gives the function back.
//
// Threading: admit() and release() from any thread; they wait for the daemon, admit() up to
// kRestartPatienceNs for one that is just starting again, so hold no lock of the data path.
// next_event() and acknowledge() from one thread. grant() does not change.
// After fork the child calls abandon() and nothing else.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "attach/attach_options.h"
#include "attach/attach_protocol.h"
#include "base/result.h"
#include "os/epoll.h"
#include "os/fd.h"
#include "os/shared_memory.h"
#include "rdma/peer_window.h"
#include "rdma/window.h"
#include "wire/ip.h"

namespace isthmus::attach {

constexpr std::uint64_t kRestartPatienceNs = 5'000'000'000;

struct GidInfo {
  wire::IpAddress gid;
  std::string interface_name;
  wire::MacAddress mac{};
  std::uint32_t mtu = 0;  // Bytes, of the interface.
  friend bool operator==(const GidInfo&, const GidInfo&) = default;
};

struct FunctionGrant {
  std::uint32_t function = 0;
  std::uint64_t generation = 0;
  rdma::Window* window = nullptr;    // Mapped as long as the client lives.
  int doorbell_fd = -1;              // Open as long as the client lives.
  std::vector<os::Fd> udp_sockets;   // For rdma::UdpPort, which takes them out of here.
  std::vector<GidInfo> gids;         // By GID index.
  std::uint64_t node_guid = 0;       // Host order; the connection manager names the device by it.
};

struct AdmitRequest {
  std::uint32_t qpn = 0;
  std::uint32_t dest_qpn = 0;
  wire::IpAddress local_gid;
  wire::IpAddress remote_gid;
  std::uint32_t transport = 0;  // ibv_qp_type
};

struct PeerGrant {
  std::uint32_t allowed_access = 0;             // ibv_access_flags the peer may use at most.
  std::shared_ptr<rdma::PeerWindow> neighbour;  // Set: the peer's memory was reached just now.
};

enum class AttachEventKind {
  kRevoke,    // qpn goes to error. Acknowledge.
  kRestrict,  // The peer of qpn may do `access` at most. Acknowledge.
  kChannel,   // qpn changes to `channel`. Acknowledge.
  kCapture,   // Record packets in the ring of the memory file `capture`.
  kGids,      // The GID table is now `gids`.
  kClosing,   // The daemon is gone for good, or gave the function to somebody else: fatal.
};

struct AttachEvent {
  AttachEventKind kind{};
  std::uint32_t qpn = 0;
  std::uint32_t access = 0;
  rdma::ChannelKind channel{};
  std::uint64_t number = 0;
  os::Fd capture;
  std::vector<GidInfo> gids;
};

class AttachClient {
 public:
  static Result<std::unique_ptr<AttachClient>> connect(const AttachOptions& options);
  ~AttachClient();
  AttachClient(const AttachClient&) = delete;
  AttachClient& operator=(const AttachClient&) = delete;

  FunctionGrant& grant() { return grant_; }

  // kDenied: the policy says no; the message has the rule. kTimedOut: no daemon answers.
  Result<PeerGrant> admit(const AdmitRequest& request);
  void release(std::uint32_t qpn);

  // Readable when next_event() has something to do. The same descriptor for ever.
  int event_fd() const { return epoll_->fd(); }
  // Without waiting; nothing, also after work on the connection. An event that makes no sense is
  // logged and left out.
  std::optional<AttachEvent> next_event();
  // The daemon waits 200 ms for it, then takes the sockets away from this function.
  void acknowledge(const AttachEvent& event);

  // In a forked child: closes its copies of the descriptors, says nothing to the daemon, which
  // would otherwise not notice the end of the parent's connection.
  void abandon();

 private:
  explicit AttachClient(const AttachOptions& options) : options_(options) {}
  Result<void> attach(ConnectionKind kind);
  Result<void> take_grant(std::span<const std::byte> message, std::vector<os::Fd> fds,
                          ConnectionKind kind);
  Result<PeerGrant> exchange_admit(const AdmitRequest& request);
  std::shared_ptr<rdma::PeerWindow> neighbour_of(const AdmissionReply& reply,
                                                 std::vector<os::Fd> fds);
  void lose_connection();
  bool come_back();

  const AttachOptions options_;
  std::uint64_t probe_word_ = 0;  // Read by neighbours, through the kernel.
  FunctionGrant grant_;
  std::unique_ptr<os::Mapping> window_mapping_;
  os::Fd window_;
  os::Fd doorbell_;
  std::unique_ptr<os::Epoll> epoll_;
  os::Fd timer_;  // Rings when it is time to look for a daemon again.

  std::mutex mutex_;  // Guards all below.
  os::Fd requests_;   // Not valid: the daemon is away.
  os::Fd events_;
  std::uint64_t retry_delay_ns_ = 0;
  bool closing_ = false;           // No daemon will know us again.
  std::optional<AttachEvent> own_event_;  // Made here: to be returned next.
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::weak_ptr<rdma::PeerWindow>> neighbours_;
};

}  // namespace isthmus::attach
