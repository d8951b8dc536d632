// What a page fault served by the program itself costs with nothing behind it: the page's bytes are
// at hand, and each round drops the page and touches it again.
//
// Usage: uffd_floor
//
// Three ways, one line of JSON each: in the faulting thread (SIGBUS), by message from a thread on
// the same processor, and by message from a thread on another, which is how other pagers do it.
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

#include "os/anonymous_memory.h"
#include "os/bus_error.h"
#include "os/clock.h"
#include "os/poll.h"
#include "os/processor.h"
#include "os/userfault.h"

namespace {

using namespace isthmus;

constexpr std::uint32_t kPages = 4096;
constexpr std::uint32_t kRounds = 20'000;

template <class T>
T expect(Result<T> result) {
  if (result) return std::move(*result);
  std::fprintf(stderr, "uffd_floor: %s\n", result.error().message.c_str());
  std::exit(77);
}

struct Region {
  std::unique_ptr<os::AnonymousMemory> memory;
  std::unique_ptr<os::AnonymousMemory> source;
  std::unique_ptr<os::Userfault> userfault;

  void serve(std::uint64_t address) const {
    userfault->copy({address & ~(os::kPageBytes - 1), os::kPageBytes}, source->data(),
                    os::UffdProtection::kOn);
  }
};

Region* the_region = nullptr;

Region make(os::UffdFeatures features) {
  Region region;
  region.memory = expect(os::AnonymousMemory::create(kPages * os::kPageBytes));
  region.source = expect(os::AnonymousMemory::create(os::kPageBytes));
  region.source->data()[0] = std::byte{1};
  region.userfault = expect(os::Userfault::open({.required = os::kUffdWp | features}));
  const auto start = reinterpret_cast<std::uint64_t>(region.memory->data());
  if (!region.userfault->register_range({start, region.memory->size()},
                                        os::kUffdRegisterMissing | os::kUffdRegisterWp)) {
    std::exit(77);
  }
  return region;
}

void measure(const char* way, const Region& region) {
  std::vector<std::uint64_t> times(kRounds);
  std::uint64_t state = 88172645463325252ull;
  for (std::uint64_t& time : times) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    volatile std::byte* page = region.memory->data() + state % kPages * os::kPageBytes;
    madvise(const_cast<std::byte*>(page), os::kPageBytes, MADV_DONTNEED);
    const std::uint64_t before = os::now_ns();
    static_cast<void>(std::byte{*page});
    time = os::now_ns() - before;
  }
  std::ranges::sort(times);
  std::printf("{\"phase\": \"floor-%s\", \"median_ns\": %llu, \"p99_ns\": %llu}\n", way,
              static_cast<unsigned long long>(times[kRounds / 2]),
              static_cast<unsigned long long>(times[kRounds * 99 / 100]));
}

void by_message(const char* way, std::uint32_t processor) {
  const Region region = make(0);
  std::atomic<bool> stop{false};
  std::thread server([&] {
    os::stay_on_processor(processor);
    const int fds[] = {region.userfault->fd()};
    std::array<os::UffdEvent, 4> events;
    while (!stop) {
      if (os::wait_readable(fds, 100 * os::kNsPerMs) == 0) continue;
      const auto count = region.userfault->read_events(events);
      for (std::size_t index = 0; count && index < *count; ++index) {
        region.serve(events[index].address);
      }
    }
  });
  measure(way, region);
  stop = true;
  server.join();
}

}  // namespace

int main() {
  os::stay_on_processor(0);
  {
    Region region = make(os::kUffdSigbus);
    the_region = &region;
    const auto caught = os::catch_bus_errors([](std::uint64_t address, os::BusAccess) {
      the_region->serve(address);
      return os::BusVerdict::kResolved;
    });
    if (!caught) return 77;
    measure("signal", region);
  }
  by_message("message-same-processor", 0);
  by_message("message-other-processor", 1);
}
