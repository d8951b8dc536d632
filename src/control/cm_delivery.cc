// Events on their way into the channels of programs.
#include <algorithm>

#include "base/assert.h"
#include "control/cm_service.h"
#include "control/cm_translate.h"
#include "os/clock.h"

namespace isthmus::control {
namespace {

// A program that does not read its events is asked again after this.
constexpr std::uint64_t kRetryNs = 2 * os::kNsPerMs;

}  // namespace

void CmService::deliver(const cm::Event& event) {
  if (event.type == cm::EventType::kConnectRequest) adopt_child(event);
  const auto record = ids_.find(event.id);
  const cm::Id* id = manager_.find(event.id);
  if (record == ids_.end() || id == nullptr) return;
  attach::CmEvent message = event_message(event);
  message.cookie = record->second.cookie;
  message.route =
      route_of(*id, __builtin_bswap64(options_.node_guid), options_.settings.packet_life_time_code);
  if (event.listener != 0) {
    const auto listener = ids_.find(event.listener);
    if (listener == ids_.end()) return;
    message.listen_cookie = listener->second.cookie;
  }
  if (event.multicast != 0) {
    const auto membership = memberships_.find(event.multicast);
    if (membership == memberships_.end()) return;
    message.cookie = membership->second.cookie;
  }
  write_event(record->second.channel, message);
}

// A new id belongs to the program of its listener, and its events go to the same channel until the
// program moves it.
void CmService::adopt_child(const cm::Event& event) {
  const auto listener = ids_.find(event.listener);
  const auto client =
      listener == ids_.end() ? clients_.end() : clients_.find(listener->second.client);
  const bool room = client != clients_.end() &&
                    client->second->ids.size() < attach::kCmMaxIds &&
                    channels_.at(listener->second.channel).waiting.size() < kMaxWaitingEvents;
  if (!room) {
    manager_.destroy_id(os::now_ns(), event.id);  // Which rejects the request.
    return;
  }
  add_id(*client->second, event.id, listener->second.channel, 0);
}

void CmService::write_event(std::uint32_t handle, const attach::CmEvent& event) {
  CmChannel& channel = channels_.at(handle);
  if (channel.waiting.empty() && try_write(channel, event)) return;
  if (channel.waiting.size() >= kMaxWaitingEvents) {
    ++counters_.events_lost;
    return;
  }
  channel.waiting.push_back(event);
  if (channel.retry == EventLoop::TimerId::kNone) {
    channel.retry = loop_.call_at(os::now_ns() + kRetryNs, [this, handle] { retry(handle); });
  }
}

// False: the channel is full. What nobody can read any more counts as written.
bool CmService::try_write(CmChannel& channel, const attach::CmEvent& event) {
  const Result<void> sent = os::send_message(channel.socket, attach::bytes_of(event), {});
  if (!sent && sent.error().code == ErrorCode::kAgain) return false;
  if (!sent) {
    ++counters_.events_lost;
    return true;
  }
  if (event.multicast != 0) {
    const auto membership = memberships_.find(event.multicast);
    if (membership != memberships_.end()) ++membership->second.events_delivered;
    return true;
  }
  const auto record = ids_.find(event.listen_id != 0 ? event.listen_id : event.id);
  if (record != ids_.end()) ++record->second.events_delivered;
  return true;
}

void CmService::retry(std::uint32_t handle) {
  CmChannel& channel = channels_.at(handle);  // A channel that goes cancels this.
  channel.retry = EventLoop::TimerId::kNone;
  while (!channel.waiting.empty() && try_write(channel, channel.waiting.front())) {
    channel.waiting.pop_front();
  }
  if (channel.waiting.empty()) return;
  channel.retry = loop_.call_at(os::now_ns() + kRetryNs, [this, handle] { retry(handle); });
}

void CmService::discard_waiting(CmChannel& channel,
                                const std::function<bool(const attach::CmEvent&)>& which) {
  std::erase_if(channel.waiting, which);
}

void CmService::add_id(CmClient& client, cm::IdHandle id, std::uint32_t channel,
                       std::uint64_t cookie) {
  client.ids.insert(id);
  ids_[id] = CmIdRecord{.client = client.id, .channel = channel, .cookie = cookie};
  ++channels_.at(channel).id_count;
}

}  // namespace isthmus::control
