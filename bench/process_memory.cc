// What the kernel takes to write into the memory of another process, with nothing on top: the floor
// of a one-sided WRITE whose target does not take part. Prints two numbers:
//
//     process_memory      half a round trip of 8 bytes, in us; 64 KiB writes, in MB/s (2^20 bytes)
//
// Eight bytes go through /proc/PID/mem, which is quicker for them than process_vm_writev, 64 KiB
// through process_vm_writev. The two processes use processors 0 and 1.
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr int kRounds = 200'000;
constexpr int kWrites = 20'000;
constexpr std::size_t kBytes = 65536;
constexpr unsigned kSecondsAtMost = 30;

struct Meeting {
  std::atomic<int> processes[2];
  std::atomic<int> ready;
  std::atomic<bool> done;
};

void pin(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  sched_setaffinity(0, sizeof set, &set);
}

double microseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
      .count();
}

}  // namespace

int main() {
  auto* meeting = static_cast<Meeting*>(
      mmap(nullptr, sizeof(Meeting), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  auto* target = static_cast<char*>(std::aligned_alloc(4096, kBytes));
  const bool is_client = fork() != 0;
  alarm(kSecondsAtMost);  // Each waits for the other, which may have failed.
  pin(is_client ? 1 : 0);
  std::memset(target, 0, kBytes);  // Ours from now on.
  meeting->processes[is_client] = getpid();
  ++meeting->ready;
  while (meeting->ready != 2) sched_yield();
  const int peer = meeting->processes[!is_client];
  const int memory = open(("/proc/" + std::to_string(peer) + "/mem").c_str(), O_RDWR);
  if (memory < 0) {
    std::perror("process_memory");
    return 1;
  }

  auto* word = reinterpret_cast<std::atomic<std::uint64_t>*>(target);
  const auto address = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(target));
  auto start = std::chrono::steady_clock::now();
  for (std::uint64_t i = 1; i <= kRounds; ++i) {
    if (!is_client) {
      while (*word != i) {
      }
    }
    if (pwrite(memory, &i, sizeof i, address) != sizeof i) return 1;
    if (is_client) {
      while (*word != i) {
      }
    }
  }
  if (!is_client) {
    while (!meeting->done) usleep(1000);
    return 0;
  }
  std::printf("%.3f", microseconds_since(start) / kRounds / 2);

  auto* source = static_cast<char*>(std::aligned_alloc(4096, kBytes));
  std::memset(source, 1, kBytes);
  start = std::chrono::steady_clock::now();
  for (int i = 0; i < kWrites; ++i) {
    const iovec from{source, kBytes};
    const iovec to{target, kBytes};
    if (process_vm_writev(peer, &from, 1, &to, 1, 0) != kBytes) return 1;
  }
  const double seconds = microseconds_since(start) / 1e6;
  std::printf(" %.0f\n", kWrites * double{kBytes} / (1 << 20) / seconds);
  meeting->done = true;
}
