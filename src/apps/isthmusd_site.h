// Site: all that the daemon does in one network namespace: its sockets, the GID table, queue pair 1
// and the connection manager behind it.
//
// Threading: shard-confined to the loop.
#pragma once

#include <functional>
#include <memory>

#include "base/result.h"
#include "control/cm_policy.h"
#include "control/cm_service.h"
#include "control/event_loop.h"
#include "control/place.h"
#include "rdma/udp_port.h"

namespace isthmus::apps {

class Site final : public control::CmNetwork {
 public:
  struct Wiring {
    control::EventLoop& loop;
    const control::HostPolicy& policy;
    control::CmHooks hooks;
    control::CmServiceOptions cm;  // node_guid is the site's own.
    std::function<void(const control::Place&)> gids_changed;
    // Every datagram of queue pair 1, as `capture` shows it.
    std::function<void(const control::CmDatagram&, bool incoming)> seen;
  };

  static Result<std::unique_ptr<Site>> open(std::unique_ptr<control::Place> place, Wiring wiring);
  ~Site() override;
  Site(const Site&) = delete;
  Site& operator=(const Site&) = delete;

  control::Place& place() { return *place_; }
  const control::Place& place() const { return *place_; }
  control::CmService& cm() { return *cm_; }
  const control::CmService& cm() const { return *cm_; }

 private:
  Site(std::unique_ptr<control::Place> place, Wiring wiring)
      : wiring_(std::move(wiring)), place_(std::move(place)) {}
  Result<void> start();
  void send(const control::CmDatagram& datagram) override;
  void on_datagrams();
  void on_addresses();

  Wiring wiring_;
  std::unique_ptr<control::Place> place_;
  std::unique_ptr<rdma::UdpPort> port_;  // Function 0's sockets.
  std::unique_ptr<control::CmService> cm_;
};

}  // namespace isthmus::apps
