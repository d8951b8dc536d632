// What the pager of a program tells, as text for people and as pictures.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "farmem/page_table.h"
#include "farmem/stats.h"

namespace isthmus::apps {

struct FarProcess {
  std::int32_t process_id = 0;
  std::string program;
  farmem::PagerStats stats;
};

// The time that `share` of the faults did not exceed, in ns; rounded up to a power of two. 0: none.
std::uint64_t fault_time_at(const farmem::TimeHistogram& times, double share);
// Of the pages fetched ahead, in percent. None: nothing was.
std::optional<double> prefetch_accuracy(const farmem::PagerStats& stats);
// Of the faults that would have waited for the store, those that prefetching avoided, in percent.
std::optional<double> prefetch_coverage(const farmem::PagerStats& stats);

// A line for each program.
std::string far_processes_text(const std::vector<FarProcess>& now);
std::string far_process_text(const FarProcess& process);

// One character for as many pages as it takes to fill `rows` lines: what most of them are.
std::string residency_text(const std::vector<farmem::PageState>& states, std::uint32_t columns,
                           std::uint32_t rows);
// The same as a picture, one square a group of pages.
std::string residency_svg(const std::vector<farmem::PageState>& states);

}  // namespace isthmus::apps
