#include "apps/isthmusd_site.h"

#include <optional>

#include "base/log.h"
#include "os/route_probe.h"

namespace isthmus::apps {
namespace {

constexpr int kBatchesPerTurn = 16;  // Before the rest of the daemon has its turn.
constexpr int kEmptyBeforeDone = 4;  // The port asks one of its sockets at a time.

}  // namespace

Result<std::unique_ptr<Site>> Site::open(std::unique_ptr<control::Place> place, Wiring wiring) {
  std::unique_ptr<Site> site(new Site(std::move(place), std::move(wiring)));
  ISTHMUS_TRY_VOID(site->start());
  return site;
}

Site::~Site() {
  if (port_) wiring_.loop.unwatch(port_->fd());
  wiring_.loop.unwatch(place_->address_watch().get());
}

Result<void> Site::start() {
  std::vector<os::Fd> sockets;
  for (const auto& group : place_->groups()) {
    sockets.push_back(ISTHMUS_TRY(group->member(0).duplicate()));
  }
  port_ = ISTHMUS_TRY(rdma::UdpPort::create(std::move(sockets)));

  std::shared_ptr<os::RouteProbe> probe;
  ISTHMUS_TRY_VOID(place_->inside([&]() -> Result<void> {
    auto made = os::RouteProbe::create();
    if (!made) return std::unexpected(std::move(made.error()));
    probe = std::make_shared<os::RouteProbe>(std::move(*made));
    return {};
  }));
  control::CmServiceOptions options = wiring_.cm;
  options.node_guid = place_->node_guid();
  cm_ = std::make_unique<control::CmService>(
      wiring_.loop, wiring_.policy, *this,
      [probe](const wire::IpAddress& destination) { return probe->source_for(destination); },
      wiring_.hooks, options);
  cm_->set_gids(place_->gids());

  ISTHMUS_TRY_VOID(wiring_.loop.watch(port_->fd(), [this] { on_datagrams(); }));
  return wiring_.loop.watch(place_->address_watch().get(), [this] { on_addresses(); });
}

void Site::send(const control::CmDatagram& datagram) {
  wiring_.seen(datagram, false);
  const iovec part = os::part_of(datagram.payload);
  const auto bytes = static_cast<std::uint32_t>(datagram.payload.size());
  const rdma::OutgoingRun run{.source = datagram.source,
                              .destination = datagram.destination,
                              .parts = {&part, 1},
                              .bytes = bytes,
                              .segment_bytes = bytes};
  port_->send({&run, 1});
}

void Site::on_datagrams() {
  int empty = 0;
  for (int i = 0; i < kBatchesPerTurn && empty < kEmptyBeforeDone; ++i) {
    const auto arrived = port_->receive();
    empty = arrived.empty() ? empty + 1 : 0;
    for (const rdma::IncomingDatagram& item : arrived) {
      const control::CmDatagram datagram{.source = item.source,
                                         .destination = item.destination,
                                         .source_port = item.source_port,
                                         .payload = item.payload};
      wiring_.seen(datagram, true);
      cm_->on_datagram(datagram);
    }
  }
}

void Site::on_addresses() {
  if (!place_->reload_gids()) return;
  ISTHMUS_LOG(kInfo, "the addresses of this host changed; it has %zu GIDs now",
              place_->gids().size());
  cm_->set_gids(place_->gids());
  wiring_.gids_changed(*place_);
}

}  // namespace isthmus::apps
