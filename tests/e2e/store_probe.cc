// Drives VerbsStore against real memory nodes, for farmem_store.py.
//
//     store_probe NODES MIB REPLICAS check   writes all slots in runs of many sizes and compares
//     store_probe NODES MIB REPLICAS zeros   whether every slot reads as zeros
//     store_probe NODES MIB REPLICAS churn   writes and compares until SIGTERM or a loss
//     store_probe NODES MIB REPLICAS bench   times single pages
//     store_probe NODE 1 1 sessions          reads with rights of its own session and of another
//     store_probe NODE 1 1 nonsense          sends what no program of ours would
//     store_probe NODE 1 1 questions         asks while signs of life are under way
//
// Exit status: 0; 1: could not begin; 3: a page was lost; 4: a page has other contents.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "farmem/remote/verbs_store.h"
#include "os/clock.h"
#include "os/event_fd.h"
#include "os/poll.h"
#include "os/random.h"
#include "os/signal_fd.h"

namespace isthmus::farmem {
namespace {

constexpr int kFailed = 1;
constexpr int kPageLost = 3;
constexpr int kPageWrong = 4;
constexpr std::uint32_t kFrames = 1024;

class Probe {
 public:
  explicit Probe(VerbsStore& store) : store_(store) {
    auto channel = store.open_channel(kFrames);
    if (!channel) {
      std::printf("no channel: %s\n", channel.error().message.c_str());
      std::exit(kFailed);
    }
    channel_ = std::move(*channel);
  }

  std::byte* frame(std::uint32_t index) const {
    return channel_->staging().data() + index * kSlotBytes;
  }

  void start_write(SlotRun run, std::uint32_t first_frame) {
    channel_->write(run, frame(first_frame), next_ticket_++);
    ++under_way_;
  }
  void start_read(SlotRun run, std::uint32_t first_frame) {
    channel_->read(run, frame(first_frame), next_ticket_++);
    ++under_way_;
  }

  void finish() {
    std::array<StoreCompletion, 8> ended;
    const std::uint64_t began = os::now_ns();
    while (under_way_ > 0) {
      const std::size_t count = channel_->poll(ended);
      for (std::size_t i = 0; i < count; ++i) {
        if (ended[i].verdict == StoreVerdict::kLost) lost(os::now_ns() - began);
      }
      under_way_ -= count;
    }
  }

  void fill(SlotRun run, std::uint32_t first_frame, std::uint64_t salt) const {
    for (std::uint32_t i = 0; i < run.count; ++i) {
      auto* words = reinterpret_cast<std::uint64_t*>(frame(first_frame + i));
      for (std::size_t word = 0; word < kSlotBytes / 8; ++word) {
        words[word] = (run.first + i) * 0x9e37'79b9'7f4a'7c15 + salt * 1'000'003 + word;
      }
    }
  }

  void compare(SlotRun run, std::uint32_t first_frame, std::uint64_t salt) {
    std::vector<std::byte> found(run.count * kSlotBytes);
    std::memcpy(found.data(), frame(first_frame), found.size());
    fill(run, first_frame, salt);
    if (std::memcmp(found.data(), frame(first_frame), found.size()) != 0) {
      std::printf("wrong contents in slots %u to %u\n", run.first, run.first + run.count - 1);
      std::fflush(stdout);
      std::_Exit(kPageWrong);
    }
  }

 private:
  void lost(std::uint64_t waited_ns) {
    // The keeper says why as soon as it has heard.
    for (int i = 0; i < 100 && store_.loss().empty(); ++i) os::wait_readable({}, os::kNsPerMs);
    std::printf("lost after %llu ms: %s\n",
                static_cast<unsigned long long>(waited_ns / os::kNsPerMs),
                store_.loss().c_str());
    std::fflush(stdout);
    std::_Exit(kPageLost);
  }

  VerbsStore& store_;
  std::unique_ptr<StoreChannel> channel_;
  std::uint64_t next_ticket_ = 0;
  std::size_t under_way_ = 0;
};

// 1, 2, 4 ... 256, 1 ... as long as a run stays in its slab and before the end.
SlotRun next_run(const VerbsStore& store, std::uint32_t first, std::uint32_t step) {
  const std::uint32_t slab = store.slots_of_slab();
  const std::uint32_t room = std::min(slab - first % slab, store.slot_count() - first);
  return {.first = first, .count = std::min(room, 1u << step % 9)};
}

template <class Use>
void for_each_batch(const VerbsStore& store, Probe& probe, Use use) {
  std::uint32_t step = 0;
  std::vector<SlotRun> batch;
  std::uint32_t frames = 0;
  for (std::uint32_t slot = 0; slot < store.slot_count();) {
    const SlotRun run = next_run(store, slot, step++);
    if (frames + run.count > kFrames) {
      use(probe, std::span<const SlotRun>(batch));
      batch.clear();
      frames = 0;
    }
    batch.push_back(run);
    frames += run.count;
    slot += run.count;
  }
  use(probe, std::span<const SlotRun>(batch));
}

void write_all(const VerbsStore& store, Probe& probe, std::uint64_t salt) {
  for_each_batch(store, probe, [&](Probe& with, std::span<const SlotRun> batch) {
    std::uint32_t at = 0;
    for (const SlotRun& run : batch) {
      with.fill(run, at, salt);
      with.start_write(run, at);
      at += run.count;
    }
    with.finish();
  });
}

void compare_all(const VerbsStore& store, Probe& probe, std::uint64_t salt) {
  for_each_batch(store, probe, [&](Probe& with, std::span<const SlotRun> batch) {
    std::uint32_t at = 0;
    for (const SlotRun& run : batch) {
      with.start_read(run, at);
      at += run.count;
    }
    with.finish();
    at = 0;
    for (const SlotRun& run : batch) {
      with.compare(run, at, salt);
      at += run.count;
    }
  });
}

int check(VerbsStore& store) {
  {
    Probe writer{store};
    Probe reader{store};
    write_all(store, writer, 1);
    compare_all(store, reader, 1);
    write_all(store, reader, 2);
    compare_all(store, writer, 2);
  }
  // Channels come and go while others work; two threads at a time.
  std::vector<std::thread> threads;
  for (std::uint32_t half = 0; half < 2; ++half) {
    threads.emplace_back([&store, half] {
      for (std::uint64_t round = 0; round < 5; ++round) {
        Probe probe{store};
        for (std::uint32_t slot = half; slot + 1 < std::min(store.slot_count(), 512u); slot += 2) {
          const SlotRun run{.first = slot, .count = 1};
          probe.fill(run, slot % 64, round);
          probe.start_write(run, slot % 64);
          // The same channel sees its own write, without waiting for it.
          probe.start_read(run, 64 + slot % 64);
          probe.finish();
          probe.compare(run, 64 + slot % 64, round);
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  std::printf("all %u slots are as written\n", store.slot_count());
  return 0;
}

int zeros(VerbsStore& store) {
  Probe probe{store};
  std::uint32_t dirty = 0;
  for (std::uint32_t slot = 0; slot < store.slot_count(); ++slot) {
    probe.start_read({.first = slot, .count = 1}, 0);
    probe.finish();
    const std::span page{probe.frame(0), kSlotBytes};
    if (!std::ranges::all_of(page, [](std::byte b) { return b == std::byte{0}; })) ++dirty;
  }
  std::printf("%u of %u slots are not zero\n", dirty, store.slot_count());
  return dirty == 0 ? 0 : kPageWrong;
}

int churn(VerbsStore& store, const os::Fd& end) {
  Probe probe{store};
  std::uint64_t round = 1;
  write_all(store, probe, round);
  const int fd = end.get();
  while (os::wait_readable({&fd, 1}, 0) == 0) {
    compare_all(store, probe, round);
    write_all(store, probe, ++round);
    if (round == 2) std::puts("churning");
    std::fflush(stdout);
  }
  compare_all(store, probe, round);
  std::printf("churned %llu rounds; %s\n", static_cast<unsigned long long>(round),
              store.loss().empty() ? "all nodes are there" : store.loss().c_str());
  return 0;
}

int bench(VerbsStore& store) {
  constexpr int kRounds = 20'000;
  Probe probe{store};
  write_all(store, probe, 1);
  for (const bool reads : {true, false}) {
    std::vector<std::uint64_t> times;
    std::uint32_t slot = 0;
    for (int i = 0; i < kRounds; ++i) {
      slot = (slot * 1'664'525u + 1'013'904'223u) % store.slot_count();
      const std::uint64_t began = os::now_ns();
      if (reads) {
        probe.start_read({.first = slot, .count = 1}, 0);
      } else {
        probe.start_write({.first = slot, .count = 1}, 0);
      }
      probe.finish();
      times.push_back(os::now_ns() - began);
    }
    std::ranges::sort(times);
    std::printf("%s of a page: p50 %.2f us, p99 %.2f us\n", reads ? "read" : "write",
                static_cast<double>(times[kRounds / 2]) / 1000,
                static_cast<double>(times[kRounds * 99 / 100]) / 1000);
  }
  return 0;
}

// A channel of one session over slabs that were granted to perhaps another one: what a read of its
// first page comes to.
Result<StoreVerdict> read_through(NodeConnection& connection, const SlabGrant& grant) {
  const ContextOwner context = ISTHMUS_TRY(open_data_context());
  const PdOwner pd{ibv_alloc_pd(context.get())};
  const SlabCopies copies{{{.address = grant.address, .rkey = grant.rkey, .node = 0}}};
  SlabMap map{16, 1, {&copies, 1}, ISTHMUS_TRY(os::create_event_fd())};
  const LinkPlace place = ISTHMUS_TRY(find_link_place(*context, connection.local_gid()));
  const auto channel = ISTHMUS_TRY(VerbsChannel::create(map, *context, *pd, 1, 1));
  const std::uint32_t psn = draw_psn();
  ibv_qp& qp = channel->queue_pair(0);
  const auto other = ISTHMUS_TRY(connection.open_channel(describe_end(qp, place, psn)));
  ISTHMUS_TRY_VOID(join_data_qp(qp, place, psn, other));
  channel->read({.first = 0, .count = 1}, channel->staging().data(), 1);
  StoreCompletion ended{};
  while (channel->poll({&ended, 1}) == 0) {
  }
  return ended.verdict;
}

int show(const char* what, const Result<StoreVerdict>& found, StoreVerdict wanted) {
  std::printf("%s: %s\n", what,
              !found ? found.error().message.c_str()
                     : (*found == StoreVerdict::kDone ? "done" : "lost"));
  return found && *found == wanted ? 0 : 1;
}

int sessions(const NodeAddress& node) {
  auto first = NodeConnection::connect({.address = node, .label = "first", .token = {}});
  auto second = NodeConnection::connect({.address = node, .label = "second", .token = {}});
  if (!first || !second) return kFailed;
  const auto granted = (*first)->reserve(1);
  if (!granted) return kFailed;
  const SlabGrant slab = granted->slabs[0];
  int wrong = show("own", read_through(**first, slab), StoreVerdict::kDone);
  wrong += show("foreign", read_through(**second, slab), StoreVerdict::kLost);
  wrong += (*second)->release(slab.slab) ? 1 : 0;

  auto joined = NodeConnection::connect(
      {.address = node, .label = "child", .token = (*first)->welcome().token});
  if (!joined) return kFailed;
  first->reset();
  wrong += show("joined", read_through(**joined, slab), StoreVerdict::kDone);
  SessionToken guess = (*joined)->welcome().token;
  guess[5] ^= 1;
  wrong += NodeConnection::connect({.address = node, .label = "thief", .token = guess}) ? 1 : 0;

  // Without a connection it lasts while somebody is expected.
  const SessionToken token = (*joined)->welcome().token;
  wrong += (*joined)->tell_of_heirs(Heirs::kExpected) ? 0 : 1;
  joined->reset();
  auto heir = NodeConnection::connect({.address = node, .label = "heir", .token = token});
  if (!heir) return kFailed;
  wrong += show("inherited", read_through(**heir, slab), StoreVerdict::kDone);
  wrong += (*heir)->tell_of_heirs(Heirs::kNone) ? 0 : 1;
  heir->reset();
  wrong += NodeConnection::connect({.address = node, .label = "late", .token = token}) ? 1 : 0;
  return wrong;
}

// As a client whose memory went wrong would: bytes that no decoder takes.
int nonsense(const NodeAddress& node) {
  constexpr int kRounds = 40;
  for (int round = 0; round < kRounds; ++round) {
    auto connection = NodeConnection::connect({.address = node, .label = "broken", .token = {}});
    if (!connection) {
      std::printf("%s\n", connection.error().message.c_str());
      return kFailed;
    }
    if (round % 4 == 0) {
      // Numbers of nothing.
      if ((*connection)->release(0xffff'ffff) || (*connection)->close_channel(0x1234)) return 1;
      continue;
    }
    if (round % 4 == 1) {
      // A queue pair that does not exist: joining it is no error, using it would be.
      (void)(*connection)->open_channel(
          {.qpn = 0xff'fff0, .psn = 1, .gid = {0xff}, .mtu = 5, .reads = 128});
      continue;
    }
    std::vector<std::byte> bytes(round * 100);
    os::fill_random(bytes);
    (*connection)->send_raw(bytes);
  }
  return 0;
}

// Expect: each question has its own answer, not that to the sign of life before it.
int questions(const NodeAddress& node) {
  const auto connection = NodeConnection::connect({.address = node, .label = "probe", .token = {}});
  if (!connection) return kFailed;
  for (int round = 0; round < 1000; ++round) {
    (*connection)->beat();
    const auto granted = (*connection)->reserve(1);
    const auto released = granted ? (*connection)->release(granted->slabs[0].slab)
                                  : Result<void>(std::unexpected(granted.error()));
    if (released) continue;
    std::printf("round %d: %s\n", round, released.error().message.c_str());
    return kPageWrong;
  }
  return 0;
}

int run(int argc, char** argv) {
  if (argc != 5) return kFailed;
  VerbsStoreOptions options{.nodes = {},
                            .bytes = std::strtoull(argv[2], nullptr, 10) << 20,
                            .replicas = static_cast<std::uint32_t>(std::atoi(argv[3])),
                            .label = "probe"};
  auto nodes = parse_node_addresses(argv[1]);
  if (!nodes) {
    std::printf("%s\n", nodes.error().message.c_str());
    return kFailed;
  }
  options.nodes = std::move(*nodes);
  const std::string command = argv[4];
  if (command == "sessions") return sessions(options.nodes.front());
  if (command == "nonsense") return nonsense(options.nodes.front());
  if (command == "questions") return questions(options.nodes.front());
  // Before any thread begins, so that none of them ends by it.
  os::Fd end;
  if (command == "churn") {
    auto signals = os::take_signals({SIGTERM});
    if (!signals) return kFailed;
    end = std::move(*signals);
  }
  const auto store = VerbsStore::connect(options);
  if (!store) {
    std::printf("%s\n", store.error().message.c_str());
    return kFailed;
  }
  if (command == "check") return check(**store);
  if (command == "zeros") return zeros(**store);
  if (command == "churn") return churn(**store, end);
  if (command == "bench") return bench(**store);
  return kFailed;
}

}  // namespace
}  // namespace isthmus::farmem

int main(int argc, char** argv) { return isthmus::farmem::run(argc, argv); }
