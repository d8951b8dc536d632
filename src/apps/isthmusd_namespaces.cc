// Daemon: serving programs in other network namespaces, as containers are.
//
// A daemon that may enter a program's network namespace opens its sockets there, so that the
// program has the addresses of its container. Entering takes CAP_SYS_ADMIN, which a daemon without
// root has nowhere; such a container needs a daemon inside.
#include <algorithm>

#include "apps/isthmusd_daemon.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/netns.h"

namespace isthmus::apps {

Result<Site*> Daemon::site_of(const os::PeerCredentials& credentials) {
  Site* own = sites_.front().get();
  auto theirs = os::open_network_namespace(credentials.process_id);
  // Another user's process, or one of another process namespace, cannot be looked at. It got a
  // connection to our socket, so it is most likely beside us.
  if (!theirs) return own;
  const std::uint64_t id = ISTHMUS_TRY(os::network_namespace_id(*theirs));
  for (const auto& site : sites_) {
    if (site->place().namespace_id() == id) return site.get();
  }
  auto opened = open_site(std::move(*theirs), {});
  if (!opened && opened.error().code == ErrorCode::kDenied) {
    return fail(ErrorCode::kDenied,
                "process %d is in another network namespace (a container), which this isthmusd may "
                "not enter; run isthmusd as root, or one inside that namespace",
                credentials.process_id);
  }
  if (!opened) return opened;
  keeper_->keep((*opened)->place());
  ISTHMUS_LOG(kInfo, "serving network namespace %llu too, with %zu GIDs",
              static_cast<unsigned long long>(id), (*opened)->place().gids().size());
  // A program that asked and went away again leaves nothing behind that would close it.
  loop_->call_at(os::now_ns() + kIdleSitePatienceNs, [this] { close_idle_sites(); });
  return opened;
}

Site* Daemon::site_of(const control::Place* place) {
  for (const auto& site : sites_) {
    if (&site->place() == place) return site.get();
  }
  return nullptr;
}

void Daemon::on_detached(const control::Function& function) {
  check_whether_needed();
  if (sites_.empty() || function.place == &sites_.front()->place()) return;
  loop_->call_at(os::now_ns() + kIdleSitePatienceNs, [this] { close_idle_sites(); });
}

void Daemon::close_idle_sites() {
  const auto idle = [this](const std::unique_ptr<Site>& site) {
    if (site == sites_.front() || site->cm().manager().id_count() > 0) return false;
    if (functions_->uses(site->place())) return false;
    ISTHMUS_LOG(kInfo, "network namespace %llu is not used any more",
                static_cast<unsigned long long>(site->place().namespace_id()));
    keeper_->forget(site->place());
    return true;
  };
  std::erase_if(sites_, idle);
}

}  // namespace isthmus::apps
