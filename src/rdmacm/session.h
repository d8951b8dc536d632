// Session: all that this process has with the daemon's connection manager.
//
// Primer: a process has one link to the daemon, some channels that events come through, and the
// ids on them. The daemon names ids by handles that live as long as the link. When the daemon is
// killed and comes back, the next call, or an event channel that somebody waits for, opens a new
// link and puts back what can be: channels, fresh ids, listeners, established ids. What was
// underway ends with an error event. Queue pairs are not touched: data does not pass the daemon.
//
// A child process (fork) starts with an empty session. The ids it inherited answer with EPERM, as
// their link belongs to the parent.
//
// Threading: any thread. Two locks, taken in this order, with the lock of a Channel between them:
// the link lock (the link, handles, recovery; held during one exchange with the daemon) and the
// registry lock (the maps and counts below; never held while anything waits, except that
// `acknowledged_` releases it).
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "rdmacm/channel.h"
#include "rdmacm/daemon_link.h"
#include "rdmacm/failure.h"
#include "rdmacm/identifier.h"

namespace isthmus::rdmacm {

using OpenLink = std::function<Result<std::unique_ptr<DaemonLink>>()>;

class Session {
 public:
  // Of this process. Made with the first use, again in each child process.
  static Session& current();

  explicit Session(OpenLink open_link) : open_link_(std::move(open_link)) {}
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  DeviceRegistry& devices() { return devices_; }

  // In a child process: this is the parent's.
  bool forgotten() const { return forgotten_; }
  void set_forgotten() { forgotten_ = true; }

  // Whether the calls of this process may use the id: a child process may not use its parent's.
  static Result<Identifier*> own(rdma_cm_id* id);

  // Fails with ENODEV when no daemon answers.
  Result<void> ensure_daemon();

  Result<Channel*> create_channel();
  void destroy_channel(Channel* channel);

  struct IdentifierSpec {
    rdma_event_channel* channel = nullptr;  // Null: a synchronous id with a channel of its own.
    void* context = nullptr;
    rdma_port_space port_space = RDMA_PS_TCP;
    ibv_qp_type qp_type = IBV_QPT_RC;
  };
  Result<Identifier*> create_identifier(const IdentifierSpec& spec);
  // Waits until the program has acknowledged every event of the id.
  void destroy_identifier(Identifier* identifier);
  // Null: to a channel of its own.
  Result<void> migrate(Identifier& identifier, rdma_event_channel* channel);

  // A request about `identifier`; its header is filled in here.
  template <class Reply, class Request>
  Result<Reply> call(Identifier& identifier, attach::CmCommand command, Request request) {
    request.header.command = command;
    Result<Reply> reply = fail(ErrorCode::kClosed, "no daemon");
    with_link([&](DaemonLink& link) {
      request.header.id = identifier.handle;
      reply = link.template exchange<Reply>(request);
      return reply || reply.error().code != ErrorCode::kClosed;
    });
    if (!reply && reply.error().code == ErrorCode::kClosed) {
      return fail_with(ENODEV, "reach the connection manager");
    }
    return reply;
  }

  // The next event of a channel. kAgain: none now, and waiting is not wanted.
  enum class Patience { kAsDescriptor, kNone };
  Result<Event*> next_event(Channel& channel, Patience patience = Patience::kAsDescriptor);
  void acknowledge(Event* event);

  Result<void> join(Identifier& identifier, std::unique_ptr<Membership> membership);
  Result<void> leave(Identifier& identifier, const attach::CmAddress& group);

 private:
  struct Target {
    Identifier* identifier = nullptr;  // Null: the event is for nobody any more.
    Identifier* child = nullptr;       // kConnectRequest: the new id.
    Membership* membership = nullptr;
  };

  // Runs `use` with the link, opened if need be; once more after a recovery if it returns false.
  void with_link(const std::function<bool(DaemonLink&)>& use);

  // With the link lock held.
  Result<DaemonLink*> link_or_open();
  Result<void> introduce(DaemonLink& link, Channel& channel);
  Result<std::uint32_t> create_at_daemon(DaemonLink& link, const Identifier& identifier);
  Result<void> recover(DaemonLink& link);
  void recover_identifier(DaemonLink& link, Identifier& identifier);
  Result<void> put_back(DaemonLink& link, Identifier& identifier);
  Result<void> restore(DaemonLink& link, Identifier& identifier);
  void report_loss(Identifier& identifier);
  void destroy_at_daemon(std::uint32_t handle);

  void daemon_lost(Channel& channel);
  void destroy_handle(std::uint32_t handle);

  void add(Identifier& identifier);
  void forget(Identifier& identifier);  // With the registry lock held.
  static bool is_about(const QueuedEvent& event, const Identifier& identifier);

  Target intake(const QueuedEvent& event);
  Identifier* adopt_request(Identifier& listener, const attach::CmEvent& event);
  void uncount(Identifier& identifier, Membership* membership);
  Result<Event*> wait_for_event(Channel& channel, Patience patience);
  // Null: the event is not for the program to see.
  std::unique_ptr<Event> make_event(const QueuedEvent& event, const Target& target);
  bool handle_event(Event& event, const QueuedEvent& queued, const Target& target);
  bool handle_request(Event& event, const QueuedEvent& queued, Identifier& child);
  bool handle_membership(Event& event, Membership& membership);

  const OpenLink open_link_;
  DeviceRegistry devices_;
  std::atomic<bool> forgotten_{false};

  std::mutex link_mutex_;
  std::unique_ptr<DaemonLink> link_;
  bool link_was_open_ = false;

  std::mutex registry_mutex_;
  std::condition_variable acknowledged_;
  std::uint64_t next_cookie_ = 1;
  std::unordered_map<std::uint64_t, Identifier*> by_cookie_;
  std::unordered_map<std::uint32_t, Identifier*> requests_;  // By handle, until accepted.
  std::unordered_map<std::uint64_t, Membership*> memberships_;
  std::vector<Channel*> channels_;
  // Closed channels, a while: the last call of a thread that used one may still come.
  std::deque<std::unique_ptr<Channel>> closed_channels_;
};

}  // namespace isthmus::rdmacm
