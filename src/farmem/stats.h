// What a pager has done since it was created.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

namespace isthmus::farmem {

// How long something took: bucket i counts times of 2^i to 2^(i+1) - 1 ns.
struct TimeHistogram {
  std::array<std::uint64_t, 40> buckets{};

  void add(std::uint64_t ns) {
    const auto bucket = static_cast<std::size_t>(std::bit_width(ns | 1) - 1);
    ++buckets[bucket < buckets.size() ? bucket : buckets.size() - 1];
  }
};

struct PagerStats {
  std::uint64_t pages_local = 0;    // Here now.
  std::uint64_t pages_staged = 0;   // In staging frames now.
  std::uint64_t pages_remote = 0;   // In the store only, now.
  std::uint64_t local_limit_pages = 0;

  std::uint64_t faults = 0;         // Served, of every kind.
  std::uint64_t faults_first = 0;   // First touch: zeros, no network.
  std::uint64_t faults_write = 0;   // First write to a clean page: no network.
  std::uint64_t faults_staged = 0;  // Found in a staging frame: no network.
  std::uint64_t faults_remote = 0;  // Waited for the store.
  std::uint64_t faults_stale = 0;   // Another thread had served it.

  std::uint64_t pages_read = 0;      // From the store.
  std::uint64_t pages_written = 0;   // To the store.
  std::uint64_t evicted_clean = 0;   // Dropped without writing.
  std::uint64_t evicted_zero = 0;    // Dirty but all zeros: became empty.
  std::uint64_t prefetched = 0;      // Of pages_read: those nobody had touched yet.
  std::uint64_t prefetch_used = 0;   // Of these: touched later, as far as that can be seen.
  std::uint64_t prefetch_late = 0;   // Of these: not there when the page asked for was installed.

  TimeHistogram fault_times;         // In serve(): without the trap, some 1.5 µs.
};

}  // namespace isthmus::farmem
