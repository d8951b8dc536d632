#include "control/function_service.h"

#include <algorithm>
#include <array>

#include "base/assert.h"
#include "base/log.h"
#include "os/clock.h"
#include "os/event_fd.h"
#include "os/process.h"
#include "os/random.h"

namespace isthmus::control {
namespace {

constexpr std::uint32_t kFirstFunction = 1;  // 0 is the daemon.
constexpr std::uint32_t kMostFunctions = rdma::kFunctionCount - kFirstFunction;
constexpr int kRequestsPerTurn = 64;  // Of one function, before others have their turn.

// The memory of a window that its owner left behind stays mapped with neighbours; they look at
// `closed` once they are woken.
void mark_closed(const os::Fd& window_file) {
  const auto mapping = os::Mapping::create(window_file, sizeof(rdma::Window));
  if (!mapping) return;
  // SAFETY: as in Function::window().
  auto* window = reinterpret_cast<rdma::Window*>((*mapping)->data());
  window->header.closed.store(1, std::memory_order_release);  // Partner: PeerWindow::closed.
}

}  // namespace

attach::GidTable gid_table_message(const std::vector<LocalGid>& gids) {
  attach::GidTable table;
  for (const LocalGid& gid : std::span(gids).first(std::min(gids.size(), table.entries.size()))) {
    attach::GidEntry& entry = table.entries[table.count++];
    entry.gid = gid.address.bytes();
    entry.interface_name = attach::text_of<sizeof entry.interface_name>(gid.interface_name);
    entry.mac = gid.mac;
    entry.mtu = gid.mtu;
  }
  return table;
}

FunctionService::~FunctionService() {
  while (!functions_.empty()) detach(functions_.begin()->first, "the daemon ends");
}

const Function* FunctionService::find(std::uint32_t function) const {
  const auto found = functions_.find(function);
  return found == functions_.end() ? nullptr : found->second.get();
}

const Function* FunctionService::owner_of_qp(std::uint32_t qpn) const {
  return find(rdma::function_of(qpn));
}

void FunctionService::for_each(const std::function<void(const Function&)>& visit) const {
  for (const auto& [index, function] : functions_) visit(*function);
}

void FunctionService::serve(os::Fd connection, Greeting greeting, Place& place) {
  const bool back = greeting.hello.kind == attach::ConnectionKind::kReattach;
  auto made = back ? take_function_back(greeting, place) : make_function(greeting, place);
  auto sent = made ? send_grant(connection, **made)
                   : Result<void>(std::unexpected(std::move(made.error())));
  if (!sent) {
    if (made) {
      for (FunctionObserver* observer : observers_) observer->on_given_up((*made)->index);
    }
    ++counters_.refused;
    ISTHMUS_LOG(kWarning, "refused process %d (%s): %s", greeting.credentials.process_id,
                greeting.hello.program.data(), sent.error().message.c_str());
    const attach::Failure failure = attach::failure_of(sent.error());
    (void)os::send_message(connection, attach::message_bytes(failure), {});  // Or it is gone.
    return;
  }
  Function& function = **made;
  function.requests = std::move(connection);
  functions_[function.index] = std::move(*made);
  last_user_[function.index] = function.owner.user_id;
  ++(back ? counters_.reattached : counters_.attached);
  ISTHMUS_LOG(kInfo, "function %u: process %d (%s) %s", function.index, function.owner.process_id,
              function.program.c_str(), back ? "came back" : "attached");
  for (FunctionObserver* observer : observers_) observer->on_attached(function);
  if (const auto watched = watch(function); !watched) {
    ISTHMUS_LOG(kError, "%s", watched.error().message.c_str());
    detach(function.index, "cannot be watched");
    return;
  }
  if (back) restore_admissions(function);
}

Result<std::uint32_t> FunctionService::free_index(std::uint32_t user_id) const {
  for (std::uint32_t index = kFirstFunction; index < rdma::kFunctionCount; ++index) {
    if (functions_.contains(index) || expected_.contains(index)) continue;
    const auto last = last_user_.find(index);
    if (last == last_user_.end() || last->second == user_id) return index;
  }
  return fail(ErrorCode::kNoMemory,
              "all %u functions of this isthmusd are in use (one for each opened device); end "
              "programs, or start another isthmusd with --address",
              kMostFunctions);
}

void FunctionService::describe(Function& function, const Greeting& greeting, Place& place) {
  const attach::Hello& hello = greeting.hello;
  function.place = &place;
  function.owner = greeting.credentials;
  function.own_process_id = hello.process_id;
  function.label = hello.label[0] != '\0' ? hello.label.data() : default_label_;
  function.program = hello.program.data();
  function.channel = hello.channel;
  function.probe_address = hello.probe_address;
  function.probe_value = hello.probe_value;
}

Result<std::unique_ptr<Function>> FunctionService::make_function(Greeting& greeting,
                                                                 Place& place) {
  auto function = std::make_unique<Function>();
  function->index = ISTHMUS_TRY(free_index(greeting.credentials.user_id));
  function->generation = os::random_u64() | 1;
  describe(*function, greeting, place);
  // Fresh for every holder: nothing of an earlier one can be in it, and a neighbour that still
  // maps the old one sees that one closed.
  function->window_file =
      ISTHMUS_TRY(os::create_shared_memory("isthmus-window", sizeof(rdma::Window)));
  function->window_mapping =
      ISTHMUS_TRY(os::Mapping::create(function->window_file, sizeof(rdma::Window)));
  function->doorbell = ISTHMUS_TRY(os::create_event_fd());
  rdma::WindowHeader& header = function->window().header;
  header.magic = rdma::kWindowMagic;
  header.function = function->index;
  header.process_id = function->owner.process_id;
  header.generation = function->generation;
  return function;
}

Result<std::unique_ptr<Function>> FunctionService::take_function_back(Greeting& greeting,
                                                                      Place& place) {
  const attach::Hello& hello = greeting.hello;
  const auto lost = [&](const char* why) {
    return fail(ErrorCode::kExists, "function %u cannot be given back: %s", hello.function, why);
  };
  if (greeting.fds.size() != 2) return lost("its window and doorbell did not come along");
  ISTHMUS_TRY_VOID(os::check_shared_memory(greeting.fds[0], sizeof(rdma::Window)));
  const auto known = functions_.find(hello.function);
  if (known != functions_.end()) {
    // The process gave up its connection before we noticed; the function never stopped.
    const Function& old = *known->second;
    if (old.generation != hello.generation ||
        old.owner.user_id != greeting.credentials.user_id ||
        !os::same_shared_memory(old.window_file, greeting.fds[0])) {
      return lost("somebody else has it");
    }
    expected_[hello.function] = KeptFunction{.index = old.index,
                                             .generation = old.generation,
                                             .user_id = old.owner.user_id,
                                             .window_file = ISTHMUS_TRY(
                                                 old.window_file.duplicate()),
                                             .doorbell = ISTHMUS_TRY(old.doorbell.duplicate()),
                                             .place = old.place};
    forget(hello.function);
  }
  const auto kept = expected_.find(hello.function);
  if (kept == expected_.end()) return lost("its sockets were lost with the last daemon");
  if (kept->second.generation != hello.generation || kept->second.place != &place ||
      kept->second.user_id != greeting.credentials.user_id ||
      !os::same_shared_memory(kept->second.window_file, greeting.fds[0])) {
    return lost("it was another process's");
  }
  auto function = std::make_unique<Function>();
  function->index = hello.function;
  function->generation = hello.generation;
  describe(*function, greeting, place);
  function->window_file = std::move(greeting.fds[0]);
  function->doorbell = std::move(greeting.fds[1]);
  function->window_mapping =
      ISTHMUS_TRY(os::Mapping::create(function->window_file, sizeof(rdma::Window)));
  expected_.erase(kept);
  return function;
}

Result<void> FunctionService::send_grant(const os::Fd& connection, Function& function) {
  auto [ours, their_events] = ISTHMUS_TRY(os::unix_socket_pair());
  function.events = std::move(ours);
  std::vector<os::Fd> sockets = ISTHMUS_TRY(function.place->sockets_of(function.index));
  // Before the process can tell anybody its number.
  ISTHMUS_TRY_VOID(function.place->steer_back(function.index));
  for (FunctionObserver* observer : observers_) observer->on_prepared(function);
  std::vector<int> fds{function.window_file.get(), function.doorbell.get(), their_events.get()};
  for (const os::Fd& socket : sockets) fds.push_back(socket.get());
  const attach::Grant grant{.generation = function.generation,
                            .node_guid = function.place->node_guid(),
                            .function = function.index,
                            .udp_count = static_cast<std::uint32_t>(sockets.size()),
                            .gids = gid_table_message(function.place->gids())};
  return os::send_message(connection, attach::message_bytes(grant), fds);
}

Result<void> FunctionService::watch(Function& function) {
  const std::uint32_t index = function.index;
  ISTHMUS_TRY_VOID(loop_.watch(function.requests.get(), [this, index] { on_request(index); }));
  ISTHMUS_TRY_VOID(
      loop_.watch(function.events.get(), [this, index] { on_acknowledgement(index); }));
  // A child of the process may hold the connection open after its end. Where the process cannot
  // be seen (another process namespace), the connection alone has to do.
  auto process = os::watch_process(function.owner.process_id);
  if (!process) return {};
  function.process = std::move(*process);
  return loop_.watch(function.process.get(), [this, index] { detach(index, "process ended"); });
}

void FunctionService::on_request(std::uint32_t index) {
  std::array<std::byte, attach::kAttachMaxMessageBytes> buffer;
  for (int i = 0; i < kRequestsPerTurn; ++i) {
    Function& function = *functions_.at(index);
    const auto received = os::receive_message(function.requests, buffer);
    if (!received && received.error().code == ErrorCode::kAgain) return;
    if (!received) return detach(index, "connection closed");
    const auto request =
        attach::decode_function_request(std::span(buffer).first(received->bytes));
    if (!request) {
      ISTHMUS_LOG(kWarning, "function %u: %s", index, request.error().message.c_str());
      return detach(index, "sent a malformed request");
    }
    if (const auto* release = std::get_if<attach::Release>(&*request)) {
      function.admissions.erase(release->qpn);
      continue;
    }
    auto answered = answer_admit(function, std::get<attach::Admit>(*request));
    if (!answered) {
      const attach::Failure failure = attach::failure_of(answered.error());
      answered = os::send_message(function.requests, attach::message_bytes(failure), {});
    }
    if (!answered) return detach(index, "does not read its answers");
  }
}

void FunctionService::forget(std::uint32_t index) {
  const auto node = functions_.extract(index);
  Function& function = *node.mapped();
  loop_.unwatch(function.requests.get());
  loop_.unwatch(function.events.get());
  if (function.process) loop_.unwatch(function.process.get());
  for (const auto& [number, timer] : function.unacknowledged) loop_.cancel(timer);
}

void FunctionService::leave() {
  while (!functions_.empty()) forget(functions_.begin()->first);
}

void FunctionService::detach(std::uint32_t index, const char* reason) {
  Function& function = *functions_.at(index);
  ISTHMUS_LOG(kInfo, "function %u: process %d (%s) detached: %s", index,
              function.owner.process_id, function.program.c_str(), reason);
  const auto steered = function.place->steer_away(index);
  if (!steered) ISTHMUS_LOG(kError, "%s", steered.error().message.c_str());
  // Release: neighbours that see it see all the owner wrote. Partner: PeerWindow::closed.
  function.window().header.closed.store(1, std::memory_order_release);
  for (const std::uint32_t other : function.neighbours) {
    if (other == index) continue;  // Connected with itself.
    const auto found = functions_.find(other);
    if (found == functions_.end()) continue;
    found->second->neighbours.erase(index);
    os::signal(found->second->doorbell.get());
  }
  ++counters_.detached;
  for (FunctionObserver* observer : observers_) observer->on_detached(function);
  forget(index);
}

void FunctionService::expect(KeptFunction kept, Place& place) {
  const std::uint32_t index = kept.index;
  last_user_[index] = kept.user_id;
  kept.place = &place;
  expected_[index] = std::move(kept);
  const auto steered = place.steer_back(index);
  if (!steered) ISTHMUS_LOG(kError, "%s", steered.error().message.c_str());
  loop_.call_at(os::now_ns() + kReturnPatienceNs, [this, index] { give_up_waiting(index); });
}

bool FunctionService::uses(const Place& place) const {
  return std::ranges::any_of(functions_,
                             [&](const auto& item) { return item.second->place == &place; }) ||
         std::ranges::any_of(expected_,
                             [&](const auto& item) { return item.second.place == &place; });
}

void FunctionService::give_up_waiting(std::uint32_t index) {
  const auto found = expected_.find(index);
  if (found == expected_.end()) return;
  ISTHMUS_LOG(kWarning, "function %u did not come back", index);
  mark_closed(found->second.window_file);
  expected_.erase(found);
  for (FunctionObserver* observer : observers_) observer->on_given_up(index);
  // Who its neighbours were went with the earlier daemon, so everybody looks.
  for (const auto& [other, function] : functions_) os::signal(function->doorbell.get());
}

}  // namespace isthmus::control
