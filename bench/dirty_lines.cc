// Dirty lines beside what a pager of whole pages does. Prints, one figure a line:
//
//   * bytes to the network for random 8-byte writes over 256 MiB: packed lines, whole pages
//   * the time to find which pages of 1 GiB were written, 1 % of them: the kernel's scan (marks
//     left, marks taken) and reading /proc/self/pagemap; then a whole collection, lines compared
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "memory/dirty_tracker.h"
#include "os/anonymous_memory.h"
#include "os/pagemap.h"
#include "os/userfault.h"

namespace {

using isthmus::memory::kPageBytes;
namespace memory = isthmus::memory;
namespace os = isthmus::os;

constexpr int kRepeats = 9;

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

struct Area {
  explicit Area(std::size_t bytes) : memory(std::move(*os::AnonymousMemory::create(bytes))) {
    // Every page of its own, as in a program that has run for a while.
    madvise(memory->data(), bytes, MADV_NOHUGEPAGE);
    std::memset(memory->data(), 1, bytes);
  }
  os::AddressRange range() const {
    return {reinterpret_cast<std::uintptr_t>(memory->data()), memory->size()};
  }
  std::unique_ptr<os::AnonymousMemory> memory;
};

int wire_bytes() {
  auto tracker = memory::DirtyTracker::create();
  if (!tracker) return std::fprintf(stderr, "%s\n", tracker.error().message.c_str()), 1;
  std::printf("mechanism: %s %s\n", to_string((*tracker)->mechanism()),
              (*tracker)->shortcoming().c_str());
  const Area area{std::size_t{256} << 20};
  const os::AddressRange range = area.range();
  std::vector<std::byte> buffer(1 << 20);
  std::mt19937_64 random{7};
  for (const int writes : {1'000, 10'000, 100'000, 1'000'000}) {
    auto tracking = (*tracker)->start({&range, 1}, {});
    if (!tracking) return std::fprintf(stderr, "%s\n", tracking.error().message.c_str()), 1;
    for (int i = 0; i < writes; ++i) {
      const std::uint64_t value = random();
      std::memcpy(area.memory->data() + random() % (range.bytes / 8) * 8, &value, sizeof value);
    }
    const auto start = std::chrono::steady_clock::now();
    (*tracking)->stop();
    std::uint64_t packed = 0;
    while (const std::size_t bytes = *(*tracking)->read_packed(buffer)) packed += bytes;
    const double took_ms = milliseconds_since(start);
    const auto pages = (*tracking)->counters().pages_dirty * (kPageBytes + 8);
    std::printf("%8d writes: lines %llu bytes, pages %llu bytes, %.1f times fewer, %.2f ms\n",
                writes, static_cast<unsigned long long>(packed),
                static_cast<unsigned long long>(pages),
                static_cast<double>(pages) / static_cast<double>(packed), took_ms);
  }
  return 0;
}

// One page in a hundred, spread.
void dirty_one_percent(const Area& area, std::uint64_t round) {
  for (std::size_t page = round % 100; page < area.memory->size() / kPageBytes; page += 100) {
    std::memcpy(area.memory->data() + page * kPageBytes, &round, sizeof round);
  }
}

std::size_t read_pagemap(int file, os::AddressRange range, std::vector<std::uint64_t>& entries) {
  constexpr std::uint64_t kWriteProtectedBit = std::uint64_t{1} << 57;
  std::size_t written = 0;
  std::uint64_t page = range.start / kPageBytes;
  while (page < range.end() / kPageBytes) {
    const std::size_t left = range.end() / kPageBytes - page;
    const ssize_t got = pread(file, entries.data(), std::min(left, entries.size()) * 8,
                              static_cast<off_t>(page * 8));
    if (got <= 0) return 0;
    for (ssize_t i = 0; i < got / 8; ++i) written += (entries[i] & kWriteProtectedBit) == 0;
    page += static_cast<std::uint64_t>(got) / 8;
  }
  return written;
}

std::size_t scan(const os::Pagemap& pagemap, os::AddressRange range, os::AfterScan after) {
  static std::vector<os::PageRun> runs(4096);
  std::size_t written = 0;
  for (std::uint64_t at = range.start; at < range.end();) {
    const auto step = pagemap.scan_written({at, range.end() - at}, runs, after);
    if (!step) return 0;
    for (std::size_t i = 0; i < step->runs; ++i) {
      written += (runs[i].end - runs[i].start) / kPageBytes;
    }
    at = step->resume_at;
  }
  return written;
}

int tracking_time() {
  const auto pagemap = os::Pagemap::open();
  auto userfault =
      os::Userfault::open({.required = os::kUffdWpAsync | os::kUffdWpUnpopulated | os::kUffdWp});
  if (!pagemap || !userfault) {
    std::puts("finding written pages: not measured, this kernel lacks PAGEMAP_SCAN or WP_ASYNC");
    return 0;
  }
  const Area area{std::size_t{1} << 30};
  const os::AddressRange range = area.range();
  const int file = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
  std::vector<std::uint64_t> entries(1 << 18);
  double leave_ms = 1e9, take_ms = 1e9, read_ms = 1e9, collect_ms = 1e9;
  std::size_t pages[3] = {};
  if (!(*userfault)->register_range(range, os::kUffdRegisterWp)) return 1;
  (*userfault)->protect(range, os::UffdProtection::kOn);
  for (int i = 0; i < kRepeats; ++i) {
    dirty_one_percent(area, static_cast<std::uint64_t>(i));
    auto start = std::chrono::steady_clock::now();
    pages[0] = read_pagemap(file, range, entries);
    read_ms = std::min(read_ms, milliseconds_since(start));
    start = std::chrono::steady_clock::now();
    pages[1] = scan(**pagemap, range, os::AfterScan::kLeave);
    leave_ms = std::min(leave_ms, milliseconds_since(start));
    start = std::chrono::steady_clock::now();
    pages[2] = scan(**pagemap, range, os::AfterScan::kProtectAgain);
    take_ms = std::min(take_ms, milliseconds_since(start));
  }
  if (!(*userfault)->unregister_range(range)) return 1;
  auto tracker = memory::DirtyTracker::create();
  auto tracking = (*tracker)->start({&range, 1}, {});
  if (!tracking) return 1;
  std::vector<memory::DirtyPage> dirty(4096);
  for (int i = 0; i < kRepeats; ++i) {
    dirty_one_percent(area, 1000u + static_cast<std::uint64_t>(i));
    const auto start = std::chrono::steady_clock::now();
    if (!(*tracking)->collect()) return 1;
    while ((*tracking)->read(dirty) != 0) {
    }
    collect_ms = std::min(collect_ms, milliseconds_since(start));
  }
  std::printf("1 GiB, 1 %% written (least of %d): pagemap %.3f ms (%zu pages), scan %.3f ms (%zu), "
              "scan and protect %.3f ms (%zu), collection with lines %.3f ms\n",
              kRepeats, read_ms, pages[0], leave_ms, pages[1], take_ms, pages[2], collect_ms);
  std::printf("pagemap / scan %.1f, pagemap / scan and protect %.1f\n", read_ms / leave_ms,
              read_ms / take_ms);
  close(file);
  return 0;
}

}  // namespace

int main() { return wire_bytes() != 0 ? 1 : tracking_time(); }
