#include "cm/exchange_table.h"

#include <utility>

#include "base/assert.h"

namespace isthmus::cm {

ExchangeTable::ExchangeTable(const Settings& settings, Random random)
    : settings_(settings), random_(std::move(random)) {}

Exchange* ExchangeTable::create() {
  if (exchanges_.size() >= settings_.max_exchanges) return nullptr;
  // The id space is 2^32 and at most 2^19 ids are taken, so a few draws always suffice.
  static constexpr int kDraws = 64;
  for (int i = 0; i < kDraws; ++i) {
    Exchange* made = create_with(static_cast<ExchangeId>(static_cast<std::uint32_t>(random_())));
    if (made != nullptr) return made;
  }
  return nullptr;
}

Exchange* ExchangeTable::create_with(ExchangeId id) {
  if (id == ExchangeId::kNone || timewait_.contains(id)) return nullptr;
  if (exchanges_.size() >= settings_.max_exchanges) return nullptr;
  const auto [place, made] = exchanges_.try_emplace(id);
  if (!made) return nullptr;
  place->second = std::make_unique<Exchange>();
  place->second->id = id;
  return place->second.get();
}

Exchange* ExchangeTable::find(ExchangeId id) {
  const auto found = exchanges_.find(id);
  return found == exchanges_.end() ? nullptr : found->second.get();
}

void ExchangeTable::index_request(const Exchange& exchange) {
  ISTHMUS_ASSERT(exchange.role == Role::kPassive);
  requests_[RemoteName{exchange.remote, exchange.remote_id}] = exchange.id;
}

Exchange* ExchangeTable::find_request(const wire::IpAddress& remote, std::uint32_t remote_id) {
  const auto found = requests_.find(RemoteName{remote, remote_id});
  return found == requests_.end() ? nullptr : find(found->second);
}

const Timewait* ExchangeTable::find_timewait_request(const wire::IpAddress& remote,
                                                     std::uint32_t remote_id) {
  const auto found = requests_.find(RemoteName{remote, remote_id});
  return found == requests_.end() ? nullptr : find_timewait(found->second);
}

std::optional<ExchangeId> ExchangeTable::index_queue_pair(const Exchange& exchange) {
  if (exchange.values.remote_qpn == 0) return std::nullopt;  // The peer has named none.
  const RemoteName name{exchange.remote, exchange.values.remote_qpn};
  const auto [place, made] = queue_pairs_.try_emplace(name, exchange.id);
  if (made || place->second == exchange.id) return std::nullopt;
  if (exchanges_.contains(place->second)) return place->second;
  place->second = exchange.id;
  return std::nullopt;
}

Exchange* ExchangeTable::find_queue_pair(const wire::IpAddress& remote,
                                         std::uint32_t remote_qpn) {
  const auto found = queue_pairs_.find(RemoteName{remote, remote_qpn});
  return found == queue_pairs_.end() ? nullptr : find(found->second);
}

void ExchangeTable::erase_from(RemoteIndex& index, const RemoteName& name, ExchangeId id) {
  const auto found = index.find(name);
  if (found != index.end() && found->second == id) index.erase(found);
}

void ExchangeTable::release_queue_pair(const Exchange& exchange) {
  erase_from(queue_pairs_, RemoteName{exchange.remote, exchange.values.remote_qpn}, exchange.id);
}

void ExchangeTable::erase(Exchange& exchange) {
  const ExchangeId id = exchange.id;
  set_deadline(exchange, 0);
  if (exchange.role == Role::kPassive) {
    erase_from(requests_, RemoteName{exchange.remote, exchange.remote_id}, id);
  }
  release_queue_pair(exchange);
  exchanges_.erase(id);
}

void ExchangeTable::retire(Exchange& exchange, std::uint64_t ends_ns) {
  if (timewait_.size() >= settings_.max_timewait) drop_oldest_timewait();
  const ExchangeId id = exchange.id;
  timewait_[id] = Timewait{.id = id,
                           .remote_id = exchange.remote_id,
                           .remote_qpn = exchange.values.remote_qpn,
                           .local_qpn = exchange.values.local_qpn,
                           .role = exchange.role,
                           .user = exchange.user,
                           .local = exchange.local,
                           .remote = exchange.remote,
                           .ends_ns = ends_ns};
  timewait_order_.push_back(id);
  set_deadline(exchange, 0);
  exchanges_.erase(id);  // The entries of the indexes now name the timewait record.
}

const Timewait* ExchangeTable::find_timewait(ExchangeId id) const {
  const auto found = timewait_.find(id);
  return found == timewait_.end() ? nullptr : &found->second;
}

void ExchangeTable::forget_user_of_timewait(ExchangeId id) {
  const auto found = timewait_.find(id);
  if (found != timewait_.end()) found->second.user = 0;
}

Timewait ExchangeTable::drop_oldest_timewait() {
  const auto found = timewait_.find(timewait_order_.front());
  ISTHMUS_ASSERT(found != timewait_.end());
  const Timewait ended = found->second;
  timewait_order_.pop_front();
  timewait_.erase(found);
  erase_from(requests_, RemoteName{ended.remote, ended.remote_id}, ended.id);
  erase_from(queue_pairs_, RemoteName{ended.remote, ended.remote_qpn}, ended.id);
  return ended;
}

void ExchangeTable::set_deadline(Exchange& exchange, std::uint64_t deadline_ns) {
  if (exchange.deadline_ns != 0) deadlines_.erase({exchange.deadline_ns, exchange.id});
  exchange.deadline_ns = deadline_ns;
  if (deadline_ns != 0) deadlines_.emplace(deadline_ns, exchange.id);
}

std::optional<std::uint64_t> ExchangeTable::next_deadline() const {
  std::optional<std::uint64_t> next;
  if (!deadlines_.empty()) next = deadlines_.begin()->first;
  if (!timewait_order_.empty()) {
    const std::uint64_t ends_ns = timewait_.at(timewait_order_.front()).ends_ns;
    if (!next || ends_ns < *next) next = ends_ns;
  }
  return next;
}

Exchange* ExchangeTable::take_expired(std::uint64_t now_ns) {
  if (deadlines_.empty() || deadlines_.begin()->first > now_ns) return nullptr;
  Exchange* exchange = find(deadlines_.begin()->second);
  ISTHMUS_ASSERT(exchange != nullptr);
  set_deadline(*exchange, 0);
  return exchange;
}

std::optional<Timewait> ExchangeTable::take_ended_timewait(std::uint64_t now_ns) {
  if (timewait_order_.empty()) return std::nullopt;
  if (timewait_.at(timewait_order_.front()).ends_ns > now_ns) return std::nullopt;
  return drop_oldest_timewait();
}

void ExchangeTable::for_each(const std::function<void(Exchange&)>& visit) {
  for (auto& [id, exchange] : exchanges_) visit(*exchange);
}

}  // namespace isthmus::cm
