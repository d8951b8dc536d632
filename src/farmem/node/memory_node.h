// MemoryNode: donates memory to programs that ask for it over the verbs.
//
// Primer: a program's control connection begins a session, or joins one; the session has slabs of
// the donated memory and queue pairs to reach them (node_session.h). Programs read and write their
// slabs by RDMA, of which the node hears nothing. When the last connection of a session ends, or is
// silent for the time of a lease, its slabs are taken back and zeroed. A program that forks says
// so: then they wait for its children, for a lease from that word on.
//
// A node that was stopped for a while (SIGSTOP, a machine asleep) does not count that time against
// anybody: it first hears what was said meanwhile.
//
// Threading: one thread in run(); facts(), set_draining() and changed_fd() are for any.
// Input: messages of programs, by node_protocol.h. One that makes no sense ends its connection.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "base/result.h"
#include "farmem/node/node_session.h"
#include "farmem/node/slab_pool.h"
#include "farmem/node_address.h"
#include "farmem/registry/node_facts.h"
#include "farmem/remote/control_endpoint.h"
#include "farmem/remote/node_protocol.h"
#include "farmem/remote/verbs_objects.h"
#include "os/epoll.h"
#include "os/fd.h"

namespace isthmus::farmem {

constexpr std::uint32_t kLeaseMs = 10'000;
constexpr std::size_t kMostConnections = 1024;

struct MemoryNodeOptions {
  std::uint64_t bytes = 0;
  std::uint64_t slab_bytes = kSlabBytes;
  std::string bind;                // Local address; empty: all of them.
  std::uint16_t port = kNodePort;  // 0: any.
  std::uint32_t lease_ms = kLeaseMs;
};

class MemoryNode {
 public:
  // Listens. kAddressInUse: another one does.
  static Result<std::unique_ptr<MemoryNode>> create(const MemoryNodeOptions& options);
  ~MemoryNode();
  MemoryNode(const MemoryNode&) = delete;
  MemoryNode& operator=(const MemoryNode&) = delete;

  // Serves until `stop` is readable. An error: the device is gone.
  Result<void> run(const os::Fd& stop);

  MemoryNodeFacts facts() const;
  // While it is, nobody gets another slab.
  void set_draining(bool draining);
  // Readable when facts() has changed; drain it.
  int changed_fd() const { return changed_.get(); }

 private:
  struct Client {
    CmIdOwner id;
    std::unique_ptr<ControlEndpoint> endpoint;
    std::shared_ptr<NodeSession> session;
    std::set<std::uint32_t> channels;  // Of the session: those that it opened.
    std::uint64_t heard_ns = 0;
  };

  MemoryNode(const MemoryNodeOptions& options, std::unique_ptr<SlabPool> pool)
      : options_(options), pool_(std::move(pool)), free_bytes_(0) {}
  Result<void> start();
  Result<void> listen();
  Result<void> make_control_objects(ibv_context& context);

  Result<void> take_events();
  void on_request(rdma_cm_id* raw_id);
  Result<void> accept(CmIdOwner id);
  void take_completions();
  void on_completion(Client& client, const ibv_wc& wc);
  void drop(Client& client, const char* why);
  void on_tick();
  void end_waiting(std::uint64_t now);

  NodeReply answer(Client& client, const NodeRequest& request);
  NodeReply begin_session(Client& client, const Hello& hello);
  NodeReply reserve(NodeSession& session, const Reserve& request);
  NodeReply open_channel(Client& client, const OpenChannel& request);
  NodeReply done_or_refused(const Result<void>& result) const;
  void note_free();

  const MemoryNodeOptions options_;
  std::unique_ptr<SlabPool> pool_;
  std::uint64_t node_id_ = 0;
  std::string address_;
  std::uint16_t port_ = 0;
  std::atomic<std::uint64_t> free_bytes_;
  std::atomic<bool> draining_{false};
  os::Fd changed_;
  os::Fd timer_;
  std::uint64_t last_tick_ns_ = 0;
  std::unique_ptr<os::Epoll> epoll_;

  // Of the sessions' queue pairs.
  ContextOwner context_;
  CqOwner data_cq_;

  // Of the control connections; made with the first, as only an id knows the context.
  EventChannelOwner events_;
  CmIdOwner listener_;
  PdOwner pd_;
  CompletionChannelOwner completion_channel_;
  CqOwner cq_;
  std::map<std::uint32_t, std::unique_ptr<Client>> clients_;  // By QP number.
  std::map<SessionToken, std::weak_ptr<NodeSession>> sessions_;
  std::map<SessionToken, std::shared_ptr<NodeSession>> waiting_;  // Without a connection.
};

}  // namespace isthmus::farmem
