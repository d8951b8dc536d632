// KeeperLink: the daemon's side of its keeper.
//
// Threading: shard-confined to the loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "control/event_loop.h"
#include "control/function_service.h"
#include "control/keeper_protocol.h"
#include "control/place.h"
#include "os/fd.h"

namespace isthmus::control {

// What an earlier daemon left behind.
struct KeptPlace {
  std::uint64_t namespace_id = 0;
  os::Fd network_namespace;  // Not valid for the daemon's own.
  std::vector<KeptGroup> groups;
  std::vector<KeptFunction> functions;
};

class KeeperLink final : public FunctionObserver {
 public:
  // Starts a keeper process and returns the connection to it.
  using Start = std::function<Result<os::Fd>()>;

  KeeperLink(EventLoop& loop, Start start) : loop_(loop), start_(std::move(start)) {}
  ~KeeperLink() override;
  KeeperLink(const KeeperLink&) = delete;
  KeeperLink& operator=(const KeeperLink&) = delete;

  // Connects to the keeper at `socket_path`, if there is one, and takes over what it has; nothing
  // when there is none. Before the loop runs.
  Result<std::vector<KeptPlace>> take_over(const std::string& socket_path);

  // With a keeper from now on: the one of take_over, or a new one, also when it should end. A
  // failure is logged: the daemon works without, but will not survive being killed.
  void start();

  // What is new at the place since the last call.
  void keep(const Place& place);

  // The place is not used any more.
  void forget(const Place& place);

  // Before the process knows: from then on it may rely on its function to survive us.
  void on_prepared(const Function& function) override;
  void on_detached(const Function& function) override;
  void on_given_up(std::uint32_t function) override;

  // The daemon ends for good.
  void finish();

 private:
  void watch();
  void send(const KeeperRecord& record, std::initializer_list<int> fds);
  void lose();

  EventLoop& loop_;
  const Start start_;
  os::Fd keeper_;  // Not valid: there is none.
  bool finished_ = false;
  // How many members of a group it has; by namespace and address.
  std::map<std::pair<std::uint64_t, wire::IpAddress>, std::uint32_t> member_counts_;
  std::map<std::uint64_t, const Place*> places_;
  std::map<std::uint32_t, const Function*> functions_;
  std::uint64_t last_start_ns_ = 0;
};

}  // namespace isthmus::control
