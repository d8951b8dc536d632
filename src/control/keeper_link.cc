#include "control/keeper_link.h"

#include <algorithm>
#include <array>

#include "base/log.h"
#include "os/clock.h"
#include "os/poll.h"
#include "os/unix_socket.h"

namespace isthmus::control {
namespace {

constexpr std::uint64_t kKeeperPatienceNs = 2 * os::kNsPerSecond;
// A keeper that ends at once must not be started in a tight circle.
constexpr std::uint64_t kStartPauseNs = 5 * os::kNsPerSecond;

std::span<const std::byte> bytes_of(const KeeperRecord& record) {
  return std::as_bytes(std::span(&record, 1));
}

KeptPlace& place_of(std::vector<KeptPlace>& places, std::uint64_t namespace_id) {
  const auto found = std::ranges::find(places, namespace_id, &KeptPlace::namespace_id);
  if (found != places.end()) return *found;
  KeptPlace fresh;
  fresh.namespace_id = namespace_id;
  return places.emplace_back(std::move(fresh));
}

KeptGroup& group_of(KeptPlace& place, const wire::IpAddress& address) {
  const auto found = std::ranges::find(place.groups, address, &KeptGroup::address);
  if (found != place.groups.end()) return *found;
  return place.groups.emplace_back(KeptGroup{.address = address, .members = {}});
}

// kInvalid: not in the order of the members' numbers, so the group is not what it was.
Result<void> add_record(std::vector<KeptPlace>& places, const KeeperRecord& record,
                        std::vector<os::Fd> fds) {
  KeptPlace& place = place_of(places, record.namespace_id);
  if (record.kind == KeeperRecordKind::kNamespace) {
    place.network_namespace = std::move(fds[0]);
  } else if (record.kind == KeeperRecordKind::kFunction) {
    place.functions.push_back({.index = record.index,
                               .generation = record.generation,
                               .user_id = record.user_id,
                               .window_file = std::move(fds[0]),
                               .doorbell = std::move(fds[1])});
  } else {
    KeptGroup& group = group_of(place, wire::IpAddress{record.address});
    if (record.index != group.members.size()) {
      return fail(ErrorCode::kInvalid, "keeper: member %u where %zu was next", record.index,
                  group.members.size());
    }
    group.members.push_back(std::move(fds[0]));
  }
  return {};
}

// Until it listens: a daemon that ended before that would leave sockets that nobody finds.
Result<void> await_keeper(const os::Fd& keeper) {
  const int fd = keeper.get();
  if (!os::wait_readable({&fd, 1}, kKeeperPatienceNs)) {
    return fail(ErrorCode::kTimedOut, "the keeper does not say that it listens");
  }
  std::array<std::byte, sizeof(KeeperRecord)> buffer;
  const auto received = ISTHMUS_TRY(os::receive_message(keeper, buffer));
  ISTHMUS_TRY(decode_keeper_record(std::span(buffer).first(received.bytes), received.fds.size()));
  return {};
}

}  // namespace

KeeperLink::~KeeperLink() {
  if (keeper_) loop_.unwatch(keeper_.get());
}

Result<std::vector<KeptPlace>> KeeperLink::take_over(const std::string& socket_path) {
  std::vector<KeptPlace> places;
  auto connection = os::connect_unix(socket_path);
  if (!connection) return places;  // Nobody: nothing was kept.
  const KeeperRecord request{.kind = KeeperRecordKind::kTakeOver};
  ISTHMUS_TRY_VOID(os::send_message(*connection, bytes_of(request), {}));
  std::array<std::byte, sizeof(KeeperRecord)> buffer;
  const int fd = connection->get();
  while (true) {
    if (!os::wait_readable({&fd, 1}, kKeeperPatienceNs)) {
      return fail(ErrorCode::kTimedOut, "the keeper at %s does not answer; end it",
                  socket_path.c_str());
    }
    auto received = os::receive_message(*connection, buffer);
    if (!received && received.error().code == ErrorCode::kClosed) return std::vector<KeptPlace>{};
    if (!received) return std::unexpected(std::move(received.error()));
    const KeeperRecord record = ISTHMUS_TRY(
        decode_keeper_record(std::span(buffer).first(received->bytes), received->fds.size()));
    if (record.kind == KeeperRecordKind::kEnd) break;
    ISTHMUS_TRY_VOID(add_record(places, record, std::move(received->fds)));
  }
  for (const KeptPlace& place : places) {
    for (const KeptGroup& group : place.groups) {
      member_counts_[{place.namespace_id, group.address}] =
          static_cast<std::uint32_t>(group.members.size());
    }
  }
  keeper_ = std::move(*connection);
  return places;
}

void KeeperLink::start() {
  if (!keeper_) {
    last_start_ns_ = os::now_ns();
    member_counts_.clear();
    auto started = start_();
    const Result<void> listens =
        started ? await_keeper(*started) : std::unexpected(std::move(started.error()));
    if (!listens) {
      ISTHMUS_LOG(kWarning, "without a keeper, programs do not survive the end of this daemon: %s",
                  listens.error().message.c_str());
      return;
    }
    keeper_ = std::move(*started);
    for (const auto& [id, place] : places_) keep(*place);
    for (const auto& [index, function] : functions_) on_prepared(*function);
  }
  if (keeper_) watch();
}

void KeeperLink::watch() {
  // It never says anything after its start or the takeover: readable means gone.
  if (!loop_.watch(keeper_.get(), [this] { lose(); })) {
    ISTHMUS_LOG(kWarning, "the keeper cannot be watched");
  }
}

void KeeperLink::lose() {
  loop_.unwatch(keeper_.get());
  keeper_.reset();
  if (finished_) return;
  ISTHMUS_LOG(kWarning, "the keeper is gone; starting another one");
  const std::uint64_t now = os::now_ns();
  loop_.call_at(std::max(now, last_start_ns_ + kStartPauseNs), [this] {
    if (!keeper_ && !finished_) start();
  });
}

void KeeperLink::send(const KeeperRecord& record, std::initializer_list<int> fds) {
  if (!keeper_) return;
  const auto sent = os::send_message(keeper_, bytes_of(record), std::span(fds.begin(), fds.size()),
                                     os::Wait::kYes);
  if (!sent) ISTHMUS_LOG(kInfo, "keeper: %s", sent.error().message.c_str());
}

void KeeperLink::keep(const Place& place) {
  const std::uint64_t id = place.namespace_id();
  const bool known = !places_.emplace(id, &place).second;
  for (const auto& group : place.groups()) {
    const auto [item, first] = member_counts_.try_emplace({id, group->address()}, 0);
    if (first && !known && place.network_namespace()) {
      send({.kind = KeeperRecordKind::kNamespace, .namespace_id = id},
           {place.network_namespace().get()});
    }
    for (std::uint32_t& count = item->second; count < group->size(); ++count) {
      send({.kind = KeeperRecordKind::kMember,
            .namespace_id = id,
            .address = group->address().bytes(),
            .index = count},
           {group->member(count).get()});
    }
  }
}

void KeeperLink::forget(const Place& place) {
  const std::uint64_t id = place.namespace_id();
  places_.erase(id);
  std::erase_if(member_counts_, [id](const auto& item) { return item.first.first == id; });
  send({.kind = KeeperRecordKind::kForgetPlace, .namespace_id = id}, {});
}

void KeeperLink::on_prepared(const Function& function) {
  functions_[function.index] = &function;
  keep(*function.place);
  send({.kind = KeeperRecordKind::kFunction,
        .namespace_id = function.place->namespace_id(),
        .generation = function.generation,
        .index = function.index,
        .user_id = function.owner.user_id,
        .process_id = function.owner.process_id},
       {function.window_file.get(), function.doorbell.get()});
}

void KeeperLink::on_detached(const Function& function) { on_given_up(function.index); }

void KeeperLink::on_given_up(std::uint32_t function) {
  functions_.erase(function);
  send({.kind = KeeperRecordKind::kForget, .index = function}, {});
}

void KeeperLink::finish() {
  finished_ = true;
  send({.kind = KeeperRecordKind::kFinish}, {});
}

}  // namespace isthmus::control
