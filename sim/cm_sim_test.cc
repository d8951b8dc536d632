// Goal: over a network that loses, repeats, delays and reorders, every attempt to connect ends, in
// bounded time, established at both ends or at neither; and nothing is left when all is over.
// Method: two or three real managers under a seeded network and clock, with programs that accept,
// refuse, think, disconnect and die at random. A failing seed is run again alone with
// ISTHMUS_SIM_SEED=N.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <string>

#include "cm/testing.h"

namespace isthmus::cm {
namespace {

constexpr std::uint16_t kPort = 7471;
constexpr std::uint8_t kRc = 2;

struct Weather {
  unsigned loss_percent = 0;
  unsigned duplicate_percent = 0;
  std::uint64_t max_delay_ns = kMillisecond;  // Uniform, so later ones overtake.
};

// What a program has seen of one of its ids.
struct Sight {
  bool connected = false;  // ESTABLISHED, or the active side's confirmed reply.
  bool over = false;       // DISCONNECTED, REJECTED or UNREACHABLE.
  bool destroyed = false;
};

// One host with the programs on it.
struct SimHost {
  SimHost(const char* address, std::uint64_t seed)
      : self(ip(address)), host({self}, seed) {}

  wire::IpAddress self;
  FakeHost host;
  std::map<IdHandle, Sight> seen;
  IdHandle listener = 0;
};

class Simulation {
 public:
  Simulation(std::uint64_t seed, const Weather& weather) : random_(seed), weather_(weather) {
    for (const char* address : {"10.0.0.1", "10.0.0.2", "10.0.0.3"}) {
      hosts_.push_back(std::make_unique<SimHost>(address, random_()));
    }
    for (auto& host : hosts_) listen(*host);
  }

  void listen(SimHost& h) {
    Manager& manager = h.host.manager;
    h.listener = manager.create_id(1, wire::PortSpace::kTcp, 0);
    ASSERT_TRUE(manager.bind(h.listener, at("0.0.0.0", kPort)));
    ASSERT_TRUE(manager.listen(h.listener, 1000));
  }

  void start_connection(std::size_t from, std::size_t to) {
    SimHost& h = *hosts_[from];
    Manager& manager = h.host.manager;
    const IdHandle id = manager.create_id(1, wire::PortSpace::kTcp, 0);
    SocketAddress destination{.ip = hosts_[to]->self, .port = kPort};
    ASSERT_TRUE(manager.resolve_address(id, std::nullopt, destination));
    ASSERT_TRUE(manager.resolve_route(id));
    ASSERT_TRUE(manager.connect(now_, id, {.qpn = ++last_qpn_, .qp_type = kRc}, {}));
    h.seen[id] = {};
    ++attempts_;
  }

  // The next thing that happens; false: nothing will, or it is too late.
  bool step(std::uint64_t until_ns) {
    settle();
    std::uint64_t next = UINT64_MAX;
    if (!in_flight_.empty()) next = in_flight_.begin()->first;
    if (!plans_.empty()) next = std::min(next, plans_.begin()->first);
    for (const auto& h : hosts_) {
      next = std::min(next, h->host.manager.next_deadline().value_or(UINT64_MAX));
    }
    if (next > until_ns) return false;
    now_ = std::max(now_, next);
    deliver_due();
    run_due_plans();
    for (const auto& h : hosts_) h->host.manager.on_timer(now_);
    settle();
    return true;
  }
  void run(std::uint64_t duration_ns) {
    const std::uint64_t until_ns = now_ + duration_ns;
    while (step(until_ns)) {
    }
    now_ = until_ns;
  }

  void destroy_all() {
    for (const auto& h : hosts_) {
      for (auto& [id, sight] : h->seen) {
        if (!sight.destroyed) h->host.manager.destroy_id(now_, id);
        sight.destroyed = true;
      }
    }
  }
  // A host that has forgotten everything.
  void restart(std::size_t index) {
    const std::string address = hosts_[index]->self.to_string();
    hosts_[index] = std::make_unique<SimHost>(address.c_str(), random_());
    listen(*hosts_[index]);
  }

  void check_agreement() {
    for (const auto& h : hosts_) {
      for (const auto& [id, sight] : h->seen) {
        EXPECT_TRUE(sight.connected || sight.over || sight.destroyed)
            << "id " << id << " never learned how it ended";
        if (!sight.connected || sight.over || sight.destroyed) continue;
        // It believes to be connected: then so does the other end, and means the same.
        const Exchange* own = h->host.manager.find(id) ? exchange_of(*h, id) : nullptr;
        ASSERT_NE(own, nullptr);
        SimHost& other = host_of(own->remote);
        Exchange* theirs = find_exchange(other, static_cast<ExchangeId>(own->remote_id));
        ASSERT_NE(theirs, nullptr) << "the other end knows nothing of it";
        EXPECT_EQ(theirs->state, ExchangeState::kEstablished);
        EXPECT_EQ(theirs->values.local_qpn, own->values.remote_qpn);
        EXPECT_EQ(theirs->values.remote_qpn, own->values.local_qpn);
        EXPECT_EQ(theirs->values.rq_psn, own->values.sq_psn);
        ++established_ends_;
      }
    }
  }
  void check_empty() {
    for (const auto& h : hosts_) {
      EXPECT_EQ(h->host.manager.connection_count(), 0u);
      EXPECT_FALSE(h->host.manager.next_deadline());
      EXPECT_EQ(h->host.manager.id_count(), 1u);  // The listener.
    }
  }

  std::size_t established_ends() const { return established_ends_; }
  std::size_t attempts() const { return attempts_; }
  std::mt19937_64& random() { return random_; }
  void set_weather(const Weather& weather) { weather_ = weather; }
  bool moody = false;  // Programs refuse, think long, disconnect and die.

 private:
  bool chance(unsigned percent) { return random_() % 100 < percent; }

  SimHost& host_of(const wire::IpAddress& address) {
    for (auto& h : hosts_) {
      if (h->self == address) return *h;
    }
    ADD_FAILURE();
    return *hosts_[0];
  }
  static Exchange* exchange_of(SimHost& h, IdHandle id) {
    return find_exchange(h, h.host.manager.find(id)->exchange);
  }
  static Exchange* find_exchange(SimHost& h, ExchangeId wanted) {
    const Exchange* found = nullptr;
    h.host.manager.for_each([&](const Id& id, const Exchange* exchange) {
      if (id.exchange == wanted) found = exchange;
    });
    return const_cast<Exchange*>(found);
  }

  // MADs into the network, events to the programs, until both are quiet.
  void settle() {
    for (bool busy = true; busy;) {
      busy = false;
      for (const auto& h : hosts_) {
        for (const OutgoingMad& mad : h->host.manager.take_outgoing()) {
          busy = true;
          send(mad);
        }
        for (const Event& event : h->host.manager.take_events()) {
          busy = true;
          on_event(*h, event);
        }
      }
    }
  }
  void send(const OutgoingMad& mad) {
    if (chance(weather_.loss_percent)) return;
    const int copies = chance(weather_.duplicate_percent) ? 2 : 1;
    for (int i = 0; i < copies; ++i) {
      in_flight_.emplace(now_ + 1 + random_() % weather_.max_delay_ns, mad);
    }
  }
  void deliver_due() {
    while (!in_flight_.empty() && in_flight_.begin()->first <= now_) {
      const OutgoingMad mad = in_flight_.begin()->second;
      in_flight_.erase(in_flight_.begin());
      SimHost& to = host_of(mad.destination);
      to.host.manager.on_mad(now_, {.source = mad.source,
                                    .destination = mad.destination,
                                    .origin = mad.source == mad.destination ? Origin::kLoopback
                                                                            : Origin::kForeign,
                                    .mad = mad.mad});
    }
  }
  void plan(std::uint64_t in_ns, std::function<void()> what) {
    plans_.emplace(now_ + in_ns, std::move(what));
  }
  void run_due_plans() {
    while (!plans_.empty() && plans_.begin()->first <= now_) {
      const auto what = plans_.begin()->second;
      plans_.erase(plans_.begin());
      what();
    }
  }

  void on_event(SimHost& h, const Event& event) {
    const IdHandle id = event.id;
    switch (event.type) {
      case EventType::kConnectRequest:
        EXPECT_FALSE(h.seen.contains(id)) << "one request was delivered twice";
        h.seen[id] = {};
        return answer(h, id);
      case EventType::kConnectResponse:
        EXPECT_FALSE(h.seen.at(id).connected);
        return confirm(h, id);
      case EventType::kEstablished:
        EXPECT_FALSE(h.seen.at(id).connected);
        EXPECT_FALSE(h.seen.at(id).over);
        h.seen.at(id).connected = true;
        return live(h, id);
      case EventType::kDisconnected:
      case EventType::kRejected:
      case EventType::kUnreachable:
        EXPECT_FALSE(h.seen.at(id).over) << "an id ended twice";
        h.seen.at(id).over = true;
        return;
      default:
        return;
    }
  }
  // Hosts may be restarted while a program thinks, so it looks again for itself.
  void later(SimHost& h, IdHandle id, std::uint64_t max_ns, std::function<void(SimHost&)> what) {
    plan(random_() % max_ns, [this, address = h.self, host = &h, id, what] {
      SimHost& again = host_of(address);
      if (&again != host || !again.seen.contains(id) || again.seen.at(id).destroyed) return;
      what(again);
    });
  }
  void answer(SimHost& h, IdHandle id) {
    const std::uint64_t thought_ns = moody && chance(20) ? 8 * kSecond : 5 * kMillisecond;
    later(h, id, thought_ns, [this, id](SimHost& at_host) {
      Manager& manager = at_host.host.manager;
      if (at_host.seen.at(id).over) return;
      if (moody && chance(20)) {
        (void)manager.reject(now_, id, wire::RejectReason::kConsumerReject, {});
        at_host.seen.at(id).over = true;
      } else if (moody && chance(10)) {
        manager.destroy_id(now_, id);
        at_host.seen.at(id).destroyed = true;
      } else {
        EXPECT_TRUE(manager.accept(now_, id, {.qpn = ++last_qpn_, .qp_type = kRc}, {}));
      }
    });
  }
  void confirm(SimHost& h, IdHandle id) {
    if (!moody || !chance(20)) {
      EXPECT_TRUE(h.host.manager.establish(now_, id));
      h.seen.at(id).connected = true;
      return live(h, id);
    }
    later(h, id, 3 * kSecond, [this, id](SimHost& at_host) {
      if (at_host.seen.at(id).over) return;
      if (chance(30)) {
        (void)at_host.host.manager.reject(now_, id, wire::RejectReason::kConsumerReject, {});
        at_host.seen.at(id).over = true;
      } else if (at_host.host.manager.establish(now_, id)) {
        at_host.seen.at(id).connected = true;
      }
    });
  }
  void live(SimHost& h, IdHandle id) {
    if (!moody || chance(40)) return;
    later(h, id, 4 * kSecond, [this, id](SimHost& at_host) {
      if (chance(50)) {
        EXPECT_TRUE(at_host.host.manager.disconnect(now_, id));
      } else {
        at_host.host.manager.destroy_id(now_, id);
        at_host.seen.at(id).destroyed = true;
      }
    });
  }

  std::mt19937_64 random_;
  Weather weather_;
  std::uint64_t now_ = kSecond;
  std::vector<std::unique_ptr<SimHost>> hosts_;
  std::multimap<std::uint64_t, OutgoingMad> in_flight_;
  std::multimap<std::uint64_t, std::function<void()>> plans_;
  std::uint32_t last_qpn_ = 0x10;
  std::size_t attempts_ = 0;
  std::size_t established_ends_ = 0;
};

std::vector<std::uint64_t> seeds(std::uint64_t count) {
  if (const char* one = std::getenv("ISTHMUS_SIM_SEED")) return {std::strtoull(one, nullptr, 0)};
  std::vector<std::uint64_t> all;
  for (std::uint64_t i = 1; i <= count; ++i) all.push_back(i);
  return all;
}

// The patience of both sides, one after the other, and the longest timewait.
constexpr std::uint64_t kBound = 30 * kSecond + 30 * kSecond + 10 * kSecond;

TEST(CmSim, InFairWeatherEveryConnectionIsMade) {
  for (const std::uint64_t seed : seeds(20)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Simulation sim(seed, {});
    for (int i = 0; i < 30; ++i) sim.start_connection(sim.random()() % 3, sim.random()() % 3);
    sim.run(kSecond);
    sim.check_agreement();
    EXPECT_EQ(sim.established_ends(), 2 * sim.attempts());
    sim.destroy_all();
    sim.run(kBound);
    sim.check_empty();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(CmSim, InFoulWeatherBothEndsAgree) {
  std::size_t attempts = 0;
  std::size_t ends = 0;
  for (const std::uint64_t seed : seeds(100)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Simulation sim(seed, {.loss_percent = static_cast<unsigned>(5 + seed % 30),
                          .duplicate_percent = 20,
                          .max_delay_ns = 400 * kMillisecond});
    for (int i = 0; i < 20; ++i) sim.start_connection(sim.random()() % 3, sim.random()() % 3);
    sim.run(kBound);
    sim.check_agreement();
    attempts += sim.attempts();
    ends += sim.established_ends();
    sim.destroy_all();
    sim.run(kBound);
    sim.check_empty();
    if (testing::Test::HasFailure()) return;
  }
  // A third of the packets lost and 14 attempts: practically all must get through.
  EXPECT_GT(ends, 2 * attempts * 99 / 100);
}

TEST(CmSim, WithMoodyProgramsBothEndsAgree) {
  for (const std::uint64_t seed : seeds(100)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Simulation sim(seed, {.loss_percent = 10,
                          .duplicate_percent = 10,
                          .max_delay_ns = 50 * kMillisecond});
    sim.moody = true;
    for (int i = 0; i < 30; ++i) sim.start_connection(sim.random()() % 3, sim.random()() % 3);
    sim.run(2 * kBound);
    sim.check_agreement();
    sim.destroy_all();
    sim.run(kBound);
    sim.check_empty();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(CmSim, ARestartedHostLeavesNoHalfConnections) {
  for (const std::uint64_t seed : seeds(50)) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Simulation sim(seed, {.loss_percent = 5, .max_delay_ns = 20 * kMillisecond});
    for (int i = 0; i < 20; ++i) sim.start_connection(sim.random()() % 2, 2);
    sim.run(sim.random()() % kSecond);
    sim.restart(2);
    for (int i = 0; i < 10; ++i) sim.start_connection(2, sim.random()() % 2);
    sim.run(kBound);
    // The others end what they believe to have; the new host says that there is nothing.
    sim.destroy_all();
    sim.run(kBound);
    sim.check_empty();
    if (testing::Test::HasFailure()) return;
  }
}

TEST(CmSim, OneSeedIsOneRun) {
  std::vector<std::size_t> ends;
  for (int i = 0; i < 2; ++i) {
    Simulation sim(42, {.loss_percent = 40, .max_delay_ns = kSecond});
    for (int c = 0; c < 20; ++c) sim.start_connection(0, 1);
    sim.run(kBound);
    sim.check_agreement();
    ends.push_back(sim.established_ends());
  }
  EXPECT_EQ(ends[0], ends[1]);
}

}  // namespace
}  // namespace isthmus::cm
