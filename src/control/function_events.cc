// FunctionService: what it admits, and what it tells the functions.
#include <infiniband/verbs.h>

#include <array>

#include "base/log.h"
#include "control/function_service.h"
#include "control/window_view.h"
#include "os/clock.h"

namespace isthmus::control {
namespace {

bool is_connected_state(std::uint32_t state) { return state >= IBV_QPS_RTR && state < IBV_QPS_ERR; }

bool is_connected_type(std::uint32_t type) {
  return type == IBV_QPT_RC || type == IBV_QPT_UC || type == IBV_QPT_XRC_SEND ||
         type == IBV_QPT_XRC_RECV;
}

}  // namespace

AdmissionQuestion FunctionService::question_of(const Function& function,
                                               const Admission& admission) const {
  AdmissionQuestion question{.label = function.label,
                             .process_id = function.owner.process_id,
                             .qpn = admission.qpn,
                             .dest_qpn = admission.dest_qpn,
                             .local = admission.local,
                             .remote = admission.remote,
                             .transport = admission.transport,
                             .remote_label = std::nullopt};
  if (function.place->has(admission.remote)) {
    const Function* peer = owner_of_qp(admission.dest_qpn);
    if (peer && peer->place == function.place) question.remote_label = peer->label;
  }
  return question;
}

// Same place, because two network namespaces may use one address for two hosts. Same user, because
// the window is handed over before the kernel is asked whether the memory may be reached.
Function* FunctionService::neighbour_for(const Function& function, const Admission& admission) {
  if (!function.place->has(admission.remote)) return nullptr;
  const auto found = functions_.find(rdma::function_of(admission.dest_qpn));
  if (found == functions_.end()) return nullptr;
  Function& peer = *found->second;
  const bool fits = peer.place == function.place &&
                    peer.owner.user_id == function.owner.user_id &&
                    peer.channel == attach::ChannelWish::kAuto &&
                    function.channel == attach::ChannelWish::kAuto;
  return fits ? &peer : nullptr;
}

Result<void> FunctionService::answer_admit(Function& function, const attach::Admit& admit) {
  const Admission asked{.qpn = admit.qpn,
                        .dest_qpn = admit.dest_qpn,
                        .local = wire::IpAddress{admit.local_gid},
                        .remote = wire::IpAddress{admit.remote_gid},
                        .transport = admit.transport};
  if (rdma::function_of(asked.qpn) != function.index) {
    return fail(ErrorCode::kInvalid, "queue pair 0x%06x is not of function %u", asked.qpn,
                function.index);
  }
  if (!function.place->has(asked.local)) {
    return fail(ErrorCode::kInvalid, "%s is not an address of this host",
                asked.local.to_string().c_str());
  }
  const AdmissionAnswer answer = gate_.judge(question_of(function, asked));
  if (!answer.allowed) {
    ++counters_.denied;
    ISTHMUS_LOG(kInfo, "denied: %s 0x%06x %s -> %s 0x%06x by policy rule %s",
                function.label.c_str(), asked.qpn, asked.local.to_string().c_str(),
                asked.remote.to_string().c_str(), asked.dest_qpn, answer.rule.c_str());
    return fail(ErrorCode::kDenied, "policy rule \"%s\" does not allow %s to connect to %s",
                answer.rule.c_str(), asked.local.to_string().c_str(),
                asked.remote.to_string().c_str());
  }
  ++counters_.admitted;
  Admission& admission = function.admissions[asked.qpn] = asked;
  admission.peer_access = answer.peer_access;

  attach::AdmissionReply reply{.allowed_access = answer.peer_access};
  std::vector<int> fds;
  if (Function* peer = neighbour_for(function, asked)) {
    ++counters_.neighbours;
    function.neighbours.insert(peer->index);
    peer->neighbours.insert(function.index);
    reply.has_neighbour = 1;
    reply.function = peer->index;
    reply.process_id = peer->owner.process_id;
    reply.own_process_id = peer->own_process_id;
    reply.generation = peer->generation;
    reply.probe_address = peer->probe_address;
    reply.probe_value = peer->probe_value;
    fds = {peer->window_file.get(), peer->doorbell.get()};
  }
  return os::send_message(function.requests, attach::message_bytes(reply), fds);
}

void FunctionService::restore_admissions(Function& function) {
  for (const QueuePairView& view : queue_pairs_of(function.window(), function.index)) {
    if (!is_connected_state(view.state) || !is_connected_type(view.type)) continue;
    const Admission admission{.qpn = view.qpn,
                              .dest_qpn = view.dest_qpn,
                              .local = view.local_gid,
                              .remote = view.remote_gid,
                              .transport = view.type,
                              .peer_access = view.access};
    function.admissions[view.qpn] = admission;
    // The peer may come back later than this one: then it finds us.
    if (Function* peer = neighbour_for(function, admission)) {
      function.neighbours.insert(peer->index);
      peer->neighbours.insert(function.index);
    }
  }
  if (function.admissions.empty()) return;
  loop_.call_at(os::now_ns() + kRestoreGraceNs, [this] { reevaluate(); });
}

std::size_t FunctionService::reevaluate() {
  std::size_t touched = 0;
  for (const auto& [index, function] : functions_) {
    for (auto& [qpn, admission] : function->admissions) {
      const AdmissionAnswer answer = gate_.judge(question_of(*function, admission));
      Result<void> told;
      if (!answer.allowed) {
        told = revoke(qpn);
      } else if ((admission.peer_access & ~answer.peer_access) != 0) {
        told = restrict_access(qpn, answer.peer_access);
      } else {
        continue;
      }
      admission.peer_access = answer.allowed ? answer.peer_access : 0;
      ++touched;
      if (!told) ISTHMUS_LOG(kError, "%s", told.error().message.c_str());
    }
  }
  return touched;
}

Result<Function*> FunctionService::function_of_qp(std::uint32_t qpn) {
  const auto found = functions_.find(rdma::function_of(qpn));
  if (found == functions_.end()) {
    return fail(ErrorCode::kNotFound, "no program here has queue pair 0x%06x", qpn);
  }
  return found->second.get();
}

Result<void> FunctionService::revoke(std::uint32_t qpn) {
  Function* function = ISTHMUS_TRY(function_of_qp(qpn));
  ++counters_.revoked;
  return send_event(*function, {.kind = attach::EventKind::kRevoke, .qpn = qpn}, nullptr);
}

Result<void> FunctionService::restrict_access(std::uint32_t qpn, std::uint32_t access) {
  Function* function = ISTHMUS_TRY(function_of_qp(qpn));
  ++counters_.restricted;
  return send_event(*function,
                    {.kind = attach::EventKind::kRestrict, .qpn = qpn, .access = access}, nullptr);
}

Result<void> FunctionService::change_channel(std::uint32_t qpn, rdma::ChannelKind channel) {
  Function* function = ISTHMUS_TRY(function_of_qp(qpn));
  return send_event(*function,
                    {.kind = attach::EventKind::kChannel,
                     .qpn = qpn,
                     .channel = static_cast<std::uint32_t>(channel)},
                    nullptr);
}

Result<void> FunctionService::start_capture(std::uint32_t function, const os::Fd& ring) {
  const auto found = functions_.find(function);
  if (found == functions_.end()) {
    return fail(ErrorCode::kNotFound, "no program has function %u", function);
  }
  return send_event(*found->second, {.kind = attach::EventKind::kCapture}, &ring);
}

Result<void> FunctionService::send_event(Function& function, attach::Event event,
                                         const os::Fd* passed) {
  const bool must_obey = event.kind == attach::EventKind::kRevoke ||
                         event.kind == attach::EventKind::kRestrict ||
                         event.kind == attach::EventKind::kChannel;
  if (must_obey) event.number = ++last_event_number_;
  const int fd = passed ? passed->get() : -1;
  const std::span<const int> fds = passed ? std::span(&fd, 1) : std::span<const int>{};
  const auto sent = os::send_message(function.events, attach::message_bytes(event), fds);
  if (must_obey && event.kind != attach::EventKind::kChannel) {
    // Also when it could not be sent: a process that does not read its events must not gain by it.
    const auto timer = loop_.call_at(
        os::now_ns() + kAcknowledgePatienceNs,
        [this, index = function.index, number = event.number] { on_silence(index, number); });
    function.unacknowledged[event.number] = timer;
  }
  return sent;
}

void FunctionService::on_acknowledgement(std::uint32_t index) {
  Function& function = *functions_.at(index);
  std::array<std::byte, attach::kAttachMaxMessageBytes> buffer;
  const auto received = os::receive_message(function.events, buffer);
  if (!received && received.error().code == ErrorCode::kAgain) return;
  const auto message = received
                           ? attach::decode_acknowledge(std::span(buffer).first(received->bytes))
                           : Result<attach::Acknowledge>(std::unexpected(received.error()));
  if (!message) {
    // The end of the function comes with the end of its request connection.
    loop_.unwatch(function.events.get());
    return;
  }
  const auto waiting = function.unacknowledged.find(message->number);
  if (waiting == function.unacknowledged.end()) return;
  loop_.cancel(waiting->second);
  function.unacknowledged.erase(waiting);
  if (!function.steered_away || !function.unacknowledged.empty()) return;
  function.steered_away = false;
  const auto steered = function.place->steer_back(index);
  if (!steered) ISTHMUS_LOG(kError, "%s", steered.error().message.c_str());
}

void FunctionService::on_silence(std::uint32_t index, std::uint64_t number) {
  const auto found = functions_.find(index);
  if (found == functions_.end()) return;
  Function& function = *found->second;
  const auto waiting = function.unacknowledged.find(number);
  if (waiting == function.unacknowledged.end()) return;
  waiting->second = EventLoop::TimerId::kNone;  // Still unacknowledged, but nothing to cancel.
  ++counters_.not_acknowledged;
  if (function.steered_away) return;
  function.steered_away = true;
  ISTHMUS_LOG(kWarning,
              "function %u: process %d (%s) did not obey within %llu ms; the network is cut off "
              "from it until it does",
              index, function.owner.process_id, function.program.c_str(),
              static_cast<unsigned long long>(kAcknowledgePatienceNs / os::kNsPerMs));
  const auto steered = function.place->steer_away(index);
  if (!steered) ISTHMUS_LOG(kError, "%s", steered.error().message.c_str());
  for (FunctionObserver* observer : observers_) observer->on_cut_off(function);
}

void FunctionService::announce_gids(const Place& place) {
  const attach::GidsChanged message{.gids = gid_table_message(place.gids())};
  for (const auto& [index, function] : functions_) {
    if (function->place != &place) continue;
    // A full socket: its owner is stuck, and asks again when it comes back.
    (void)os::send_message(function->events, attach::message_bytes(message), {});
  }
}

void FunctionService::announce_closing() {
  for (const auto& [index, function] : functions_) {
    (void)send_event(*function, {.kind = attach::EventKind::kClosing}, nullptr);
  }
}

}  // namespace isthmus::control
