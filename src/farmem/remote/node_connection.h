// NodeConnection: the control connection of a program to one memory node.
//
// Threading: any thread; requests wait for each other, each at most kPatienceMs.
// Input: replies of the node.
#pragma once

#include <sys/socket.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/result.h"
#include "farmem/node_address.h"
#include "farmem/remote/control_endpoint.h"
#include "farmem/remote/node_protocol.h"
#include "farmem/remote/verbs_objects.h"

namespace isthmus::farmem {

class NodeConnection {
 public:
  static constexpr std::uint64_t kPatienceMs = 4000;

  struct Options {
    NodeAddress address;
    std::string label;
    SessionToken token{};  // Zeros: a new session.
    // Of another connection to this node, instead of asking what addresses the host has: whoever
    // answers that reads the environment, which in a child of fork() may be far.
    const sockaddr_storage* peer = nullptr;
  };
  // kUnreachable, kRefused: nobody serves there. kNotFound: no such session.
  static Result<std::unique_ptr<NodeConnection>> connect(const Options& options);
  ~NodeConnection();
  NodeConnection(const NodeConnection&) = delete;
  NodeConnection& operator=(const NodeConnection&) = delete;

  const std::string& name() const { return name_; }
  const Welcome& welcome() const { return welcome_; }
  const Gid& local_gid() const { return local_gid_; }
  const NodeAddress& address() const { return address_; }
  const sockaddr_storage& peer() const { return peer_; }

  // Fewer than asked for when there are not more; kNoMemory: none; kBusy: it is drained.
  Result<Granted> reserve(std::uint32_t slabs);
  Result<void> release(std::uint32_t slab);
  Result<ChannelEnd> open_channel(const ChannelEnd& ours);
  Result<void> close_channel(std::uint32_t node_qpn);
  // Whether other processes may join this session by its token.
  Result<void> tell_of_heirs(Heirs heirs);

  // Any bytes as a message, for tests of the node.
  void send_raw(std::span<const std::byte> bytes);

  // Says that we are alive, without waiting for the answer; looks what has arrived.
  void beat();
  // Looks only. Worth it when event_fd() is readable.
  void look();
  int event_fd() const { return events_->fd; }

  bool is_closed() const { return closed_; }
  std::string reason() const;  // Of being closed.

 private:
  explicit NodeConnection(const NodeAddress& address)
      : address_(address), name_(address.text()) {}

  Result<void> resolve(const Options& options);
  Result<void> establish();
  Result<void> await_event(rdma_cm_event_type wanted);
  Result<NodeReply> exchange(const NodeRequest& request);
  template <class Reply>
  Result<Reply> ask(const NodeRequest& request);

  // With the lock held, or before anybody else knows the connection.
  Result<void> post(const NodeRequest& request);
  void take_events();
  void take_completions();
  void take_reply(const ControlEndpoint::Completed& done);
  void wait_until(std::uint64_t deadline_ns);
  void close(const std::string& reason);

  const NodeAddress address_;
  const std::string name_;
  sockaddr_storage peer_{};
  Welcome welcome_{};
  Gid local_gid_{};

  EventChannelOwner events_;
  CmIdOwner id_;
  PdOwner pd_;
  CompletionChannelOwner completion_channel_;
  CqOwner cq_;
  std::unique_ptr<ControlEndpoint> endpoint_;

  mutable std::mutex mutex_;
  std::uint32_t sequence_ = 0;
  std::uint32_t places_under_way_ = 0;  // Bit by place: sent, not completed.
  std::optional<std::uint32_t> awaited_;  // The request that somebody waits for, once it is sent.
  std::optional<NodeReply> reply_;        // To that one.
  std::atomic<bool> closed_{false};
  std::string reason_;
};

}  // namespace isthmus::farmem
