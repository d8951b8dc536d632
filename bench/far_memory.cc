// Far memory under one load: 256 MiB in touches of 4 KiB, a quarter of it here.
//
// Usage: far_memory [--megabytes N] [--local PERCENT] [--touches N] [--delivery signal|message]
//                   [--prefetch none|next|adaptive] [--node ADDRESS:PORT]... [--plain] [PHASE...]
//
// Phases: write-sequential (first touch), read-sequential, read-random, read-hot (90 % of the
// touches on 10 % of the pages), modify-random, read-stride, read-threads (read-random by two
// threads), at-hand (faults whose page is in a staging frame). Each read checks what the page has.
// Each phase prints a line of JSON: mean, median, 99th percentile in ns a touch.
//
// With nodes (under `isthmus run`) the pages go there; without, to a model of a store in this
// process's memory, which measures the pager alone. --plain: ordinary memory, for whatever the
// kernel does with it, such as swapping under a memory cgroup.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "farmem/fault_messages.h"
#include "farmem/fault_signal.h"
#include "farmem/model_store.h"
#include "farmem/pager.h"
#include "farmem/remote/verbs_store.h"
#include "os/anonymous_memory.h"
#include "os/clock.h"

namespace isthmus {
namespace {

struct Options {
  std::uint64_t megabytes = 256;
  std::uint64_t local_percent = 25;
  std::uint64_t touches = 200'000;
  farmem::FaultDelivery delivery = farmem::FaultDelivery::kSignal;
  farmem::PrefetchPolicy prefetch = farmem::PrefetchPolicy::kAdaptive;
  std::vector<farmem::NodeAddress> nodes;
  bool plain = false;
  std::vector<std::string> phases;

  bool wants(std::string_view phase) const {
    return phases.empty() || std::ranges::find(phases, phase) != phases.end();
  }
};

class Load {
 public:
  Load(std::uint64_t base, std::uint64_t pages) : base_(base), pages_(pages) {}

  template <class Touch>
  void run(const char* phase, std::uint64_t touches, Touch touch) {
    std::vector<std::uint32_t> times(touches);
    const std::uint64_t start = os::now_ns();
    for (std::uint64_t index = 0; index < touches; ++index) {
      const std::uint64_t page = touch.page(index, *this);
      const std::uint64_t before = os::now_ns();
      touch.at(word(page), page, *this);
      times[index] = static_cast<std::uint32_t>(os::now_ns() - before);
    }
    const std::uint64_t total = os::now_ns() - start;
    std::ranges::sort(times);
    std::printf("{\"phase\": \"%s\", \"touches\": %llu, \"mean_ns\": %.0f, \"median_ns\": %u, "
                "\"p99_ns\": %u}\n",
                phase, static_cast<unsigned long long>(touches),
                static_cast<double>(total) / static_cast<double>(touches), times[touches / 2],
                times[touches * 99 / 100]);
    std::fflush(stdout);
  }

  std::uint64_t pages() const { return pages_; }
  std::uint64_t random() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    return state_ ^= state_ << 17;
  }
  static std::uint64_t signature(std::uint64_t page) { return page * 0x9E3779B97F4A7C15ull + 1; }
  void check(std::uint64_t found, std::uint64_t page) const {
    if (found == signature(page)) return;
    std::fprintf(stderr, "far_memory: page %llu has %llx\n",
                 static_cast<unsigned long long>(page), static_cast<unsigned long long>(found));
    std::exit(1);
  }

 private:
  volatile std::uint64_t* word(std::uint64_t page) const {
    // SAFETY: within the region.
    return reinterpret_cast<volatile std::uint64_t*>(base_ + page * os::kPageBytes);
  }

  std::uint64_t base_;
  std::uint64_t pages_;
  std::uint64_t state_ = 88172645463325252ull;
};

struct Sequential {
  static std::uint64_t page(std::uint64_t index, Load& load) { return index % load.pages(); }
};
struct Random {
  static std::uint64_t page(std::uint64_t, Load& load) { return load.random() % load.pages(); }
};
struct Hot {
  static std::uint64_t page(std::uint64_t, Load& load) {
    const bool hot = load.random() % 100 < 90;
    const std::uint64_t rank = load.random() % (hot ? load.pages() / 10 : load.pages());
    return rank * 7919 % load.pages();
  }
};
struct Stride {
  static std::uint64_t page(std::uint64_t index, Load& load) {
    const std::uint64_t quarter = load.pages() / 4;
    return index % quarter * 4 + index / quarter % 4;
  }
};
struct Fill {
  static void at(volatile std::uint64_t* word, std::uint64_t page, Load&) {
    for (int line = 0; line < 512; line += 8) word[line] = Load::signature(page);
  }
};
struct Read {
  static void at(volatile std::uint64_t* word, std::uint64_t page, Load& load) {
    load.check(*word, page);
  }
};
struct Modify {
  static void at(volatile std::uint64_t* word, std::uint64_t page, Load& load) {
    word[256] = word[256] + 1;
    load.check(*word, page);
  }
};
template <class Where, class What>
struct Touch : Where, What {};

void read_by_threads(const Options& options, const Load& load) {
  std::vector<std::thread> threads;
  for (std::uint64_t thread = 1; thread <= 2; ++thread) {
    threads.emplace_back([&options, own = load, thread]() mutable {
      for (std::uint64_t turn = 0; turn < thread * 1000; ++turn) own.random();
      own.run("read-threads", options.touches, Touch<Random, Read>{});
    });
  }
  for (std::thread& thread : threads) thread.join();
}

void measure(const Options& options, Load& load) {
  const std::uint64_t pages = load.pages();
  load.run("write-sequential", pages, Touch<Sequential, Fill>{});
  if (options.wants("read-sequential")) {
    load.run("read-sequential", 2 * pages, Touch<Sequential, Read>{});
  }
  if (options.wants("read-random")) {
    load.run("read-random", options.touches, Touch<Random, Read>{});
  }
  if (options.wants("read-hot")) load.run("read-hot", options.touches, Touch<Hot, Read>{});
  if (options.wants("read-stride")) load.run("read-stride", pages, Touch<Stride, Read>{});
  if (options.wants("read-threads")) read_by_threads(options, load);
  if (options.wants("modify-random")) {
    load.run("modify-random", options.touches, Touch<Random, Modify>{});
  }
}

// Pages that are in staging frames when they are touched: what a fault costs without a network.
void measure_at_hand(farmem::Pager& pager, Load& load) {
  struct AtHand : Read {
    farmem::Pager& pager;
    std::uint64_t page(std::uint64_t index, Load& load) const {
      // One page of each eight, fetched beforehand, so that no window hides the fault.
      const std::uint64_t page = index * 8 % load.pages();
      pager.prefetch({pager.region().start + page * os::kPageBytes, os::kPageBytes});
      return page;
    }
  };
  load.run("at-hand", load.pages() / 8, AtHand{{}, pager});
}

template <class T>
T expect(Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "far_memory: %s\n", result.error().message.c_str());
  std::exit(77);
}

std::unique_ptr<farmem::Store> open_store(const Options& options, std::uint32_t pages) {
  if (options.nodes.empty()) {
    return expect(farmem::ModelStore::create({.slot_count = pages, .slots_of_slab = 16384}));
  }
  return expect(farmem::VerbsStore::connect(
      {.nodes = options.nodes, .bytes = pages * os::kPageBytes, .label = "bench"}));
}

int run_plain(const Options& options) {
  auto memory = expect(os::AnonymousMemory::create(options.megabytes << 20));
  // SAFETY: an address to compute with.
  Load load(reinterpret_cast<std::uint64_t>(memory->data()), memory->size() / os::kPageBytes);
  measure(options, load);
  return 0;
}

int run(const Options& options) {
  const std::uint64_t bytes = options.megabytes << 20;
  const auto pages = static_cast<std::uint32_t>(bytes / os::kPageBytes);
  auto store = open_store(options, pages);
  auto pager = expect(farmem::Pager::create(
      *store, {.region_bytes = bytes,
               .local_bytes = bytes * options.local_percent / 100,
               .delivery = options.delivery,
               .prefetch = options.prefetch}));
  std::unique_ptr<farmem::FaultSignal> signal;
  std::unique_ptr<farmem::FaultMessages> messages;
  if (options.delivery == farmem::FaultDelivery::kSignal) {
    signal = expect(farmem::FaultSignal::start(*pager));
  } else {
    messages = expect(farmem::FaultMessages::start(*pager));
  }
  Load load(pager->region().start, pages);
  measure(options, load);
  if (options.wants("at-hand")) measure_at_hand(*pager, load);
  return 0;
}

bool set_option(Options& options, std::string_view name, const std::string& value) {
  using farmem::FaultDelivery;
  using farmem::PrefetchPolicy;
  const std::uint64_t number = std::strtoull(value.c_str(), nullptr, 10);
  if (name == "--megabytes") {
    options.megabytes = number;
  } else if (name == "--local") {
    options.local_percent = number;
  } else if (name == "--touches") {
    options.touches = number;
  } else if (name == "--node") {
    options.nodes.push_back(expect(farmem::parse_node_address(value)));
  } else if (name == "--delivery" && (value == "signal" || value == "message")) {
    options.delivery = value == "signal" ? FaultDelivery::kSignal : FaultDelivery::kMessage;
  } else if (name == "--prefetch" && (value == "none" || value == "next" || value == "adaptive")) {
    options.prefetch = value == "none"   ? PrefetchPolicy::kNone
                       : value == "next" ? PrefetchPolicy::kNext
                                         : PrefetchPolicy::kAdaptive;
  } else {
    return false;
  }
  return true;
}

int usage() {
  std::fprintf(stderr, "usage: far_memory [--megabytes N] [--local PERCENT] [--touches N] "
                       "[--delivery signal|message] [--prefetch none|next|adaptive] "
                       "[--node ADDRESS:PORT]... [--plain] [PHASE...]\n");
  return 2;
}

}  // namespace
}  // namespace isthmus

int main(int count, char** arguments) {
  isthmus::Options options;
  for (int index = 1; index < count; ++index) {
    const std::string_view name = arguments[index];
    if (!name.starts_with("--")) {
      options.phases.emplace_back(name);
      continue;
    }
    if (name == "--plain") {
      options.plain = true;
      continue;
    }
    if (++index == count) return isthmus::usage();
    const std::string value = arguments[index];
    if (!isthmus::set_option(options, name, value)) return isthmus::usage();
  }
  return options.plain ? isthmus::run_plain(options) : isthmus::run(options);
}
