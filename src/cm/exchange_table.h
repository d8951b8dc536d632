// ExchangeTable: every exchange of this host, found by any of its names, and the timers.
//
// Names: our communication id; the peer's address with the id the peer chose (duplicates of a
// request find their exchange so); the peer's address with its QP number (a second connection of
// the same queue pair is a stale one). Numbers stay taken through timewait.
//
// The maps are ordered ones: a peer chooses part of the keys, and could fill one bucket of a hash.
//
// Threading: shard-confined.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>

#include "cm/exchange.h"
#include "cm/settings.h"

namespace isthmus::cm {

// What is left of a closed connection.
struct Timewait {
  ExchangeId id = ExchangeId::kNone;
  std::uint32_t remote_id = 0;
  std::uint32_t remote_qpn = 0;
  std::uint32_t local_qpn = 0;
  Role role = Role::kActive;
  UserHandle user = 0;
  wire::IpAddress local;
  wire::IpAddress remote;
  std::uint64_t ends_ns = 0;
};

class ExchangeTable {
 public:
  using Random = std::function<std::uint64_t()>;

  ExchangeTable(const Settings& settings, Random random);

  // A new exchange with an id that nobody uses; null when the table is full.
  Exchange* create();
  // The same with a given id, for a connection from before a restart; null when it is taken.
  Exchange* create_with(ExchangeId id);
  Exchange* find(ExchangeId id);

  // Enters the peer's id (exchange.remote and remote_id are set). A passive exchange only: the ids
  // of one peer's requests are its own.
  void index_request(const Exchange& exchange);
  Exchange* find_request(const wire::IpAddress& remote, std::uint32_t remote_id);
  const Timewait* find_timewait_request(const wire::IpAddress& remote, std::uint32_t remote_id);

  // Enters the peer's queue pair, or says which live exchange has it. One in timewait gives it up:
  // when to use a queue pair number again is for its owner to judge, and a late packet of the old
  // connection is for another queue pair of ours.
  std::optional<ExchangeId> index_queue_pair(const Exchange& exchange);
  Exchange* find_queue_pair(const wire::IpAddress& remote, std::uint32_t remote_qpn);

  // The connection never came about: the peer's queue pair is free for another attempt.
  void release_queue_pair(const Exchange& exchange);

  void erase(Exchange& exchange);
  // Erases it, and keeps its numbers until `ends_ns`, which is no earlier than the last call's.
  void retire(Exchange& exchange, std::uint64_t ends_ns);
  const Timewait* find_timewait(ExchangeId id) const;
  // No event at the end of this timewait.
  void forget_user_of_timewait(ExchangeId id);

  // One timer an exchange; 0 stops it.
  void set_deadline(Exchange& exchange, std::uint64_t deadline_ns);
  std::optional<std::uint64_t> next_deadline() const;
  // The next exchange whose deadline has come; the deadline is then cleared. Null: no more.
  Exchange* take_expired(std::uint64_t now_ns);
  std::optional<Timewait> take_ended_timewait(std::uint64_t now_ns);

  std::size_t size() const { return exchanges_.size(); }
  std::size_t timewait_size() const { return timewait_.size(); }
  void for_each(const std::function<void(Exchange&)>& visit);

 private:
  struct RemoteName {
    wire::IpAddress address;
    std::uint32_t number;
    friend auto operator<=>(const RemoteName&, const RemoteName&) = default;
  };
  using RemoteIndex = std::map<RemoteName, ExchangeId>;

  static void erase_from(RemoteIndex& index, const RemoteName& name, ExchangeId id);
  Timewait drop_oldest_timewait();

  const Settings settings_;
  Random random_;
  std::unordered_map<ExchangeId, std::unique_ptr<Exchange>> exchanges_;
  std::unordered_map<ExchangeId, Timewait> timewait_;
  std::deque<ExchangeId> timewait_order_;
  RemoteIndex requests_;
  RemoteIndex queue_pairs_;
  std::set<std::pair<std::uint64_t, ExchangeId>> deadlines_;
};

}  // namespace isthmus::cm
