#include "apps/isthmus_far_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "apps/isthmus_table.h"
#include "os/address_range.h"

namespace isthmus::apps {
namespace {

using farmem::PagerStats;
using farmem::PageState;

constexpr std::size_t kStates = static_cast<std::size_t>(PageState::kLost) + 1;

struct Look {
  char letter;
  const char* colour;
  const char* meaning;
};
constexpr std::array<Look, kStates> kLooks{{{'.', "#f4f4f4", "empty"},
                                            {'c', "#8ecae6", "here, clean"},
                                            {'D', "#1d70a2", "here, dirty"},
                                            {'r', "#e9c46a", "remote"},
                                            {'s', "#90be6d", "in flight"},
                                            {'!', "#d62828", "lost"}}};

std::string pages_text(std::uint64_t pages) { return bytes_text(pages * os::kPageBytes); }

std::string percent_text(std::optional<double> percent) {
  return percent ? fmt::format("{:.0f} %", *percent) : "-";
}

std::string time_text(std::uint64_t ns) {
  if (ns == 0) return "-";
  return ns < 10'000 ? fmt::format("{:.1f} us", static_cast<double>(ns) / 1e3)
                     : fmt::format("{:.0f} us", static_cast<double>(ns) / 1e3);
}

// What most pages of a group are, but one lost page shows.
PageState state_of_group(const std::vector<PageState>& states, std::size_t first,
                         std::size_t count) {
  std::array<std::size_t, kStates> seen{};
  for (std::size_t index = first; index < std::min(first + count, states.size()); ++index) {
    ++seen[static_cast<std::size_t>(states[index])];
  }
  if (seen[static_cast<std::size_t>(PageState::kLost)] > 0) return PageState::kLost;
  return static_cast<PageState>(std::ranges::max_element(seen) - seen.begin());
}

const Look& look_of(PageState state) { return kLooks[static_cast<std::size_t>(state)]; }

}  // namespace

std::uint64_t fault_time_at(const farmem::TimeHistogram& times, double share) {
  std::uint64_t all = 0;
  for (const std::uint64_t count : times.buckets) all += count;
  if (all == 0) return 0;
  const auto wanted = static_cast<std::uint64_t>(share * static_cast<double>(all));
  std::uint64_t seen = 0;
  for (std::size_t bucket = 0; bucket < times.buckets.size(); ++bucket) {
    seen += times.buckets[bucket];
    if (seen > wanted || seen == all) return std::uint64_t{2} << bucket;
  }
  return 0;
}

std::optional<double> prefetch_accuracy(const PagerStats& stats) {
  if (stats.prefetched == 0) return std::nullopt;
  const auto used = std::min(stats.prefetch_used, stats.prefetched);
  return 100.0 * static_cast<double>(used) / static_cast<double>(stats.prefetched);
}

std::optional<double> prefetch_coverage(const PagerStats& stats) {
  const std::uint64_t used = std::min(stats.prefetch_used, stats.prefetched);
  if (used + stats.faults_remote == 0) return std::nullopt;
  return 100.0 * static_cast<double>(used) / static_cast<double>(used + stats.faults_remote);
}

std::string far_processes_text(const std::vector<FarProcess>& now) {
  using Align = Table::Align;
  Table table{{{"PID", Align::kRight},
               {"PROGRAM"},
               {"LOCAL", Align::kRight},
               {"LIMIT", Align::kRight},
               {"REMOTE", Align::kRight},
               {"FAULTS", Align::kRight},
               {"WAITED", Align::kRight},
               {"READ", Align::kRight},
               {"WRITTEN", Align::kRight},
               {"MEDIAN", Align::kRight},
               {"99 %", Align::kRight}}};
  for (const FarProcess& process : now) {
    const PagerStats& stats = process.stats;
    table.add({std::to_string(process.process_id), process.program, pages_text(stats.pages_local),
               pages_text(stats.local_limit_pages), pages_text(stats.pages_remote),
               count_text(static_cast<double>(stats.faults)),
               count_text(static_cast<double>(stats.faults_remote)), pages_text(stats.pages_read),
               pages_text(stats.pages_written), time_text(fault_time_at(stats.fault_times, 0.5)),
               time_text(fault_time_at(stats.fault_times, 0.99))});
  }
  return table.text();
}

std::string far_process_text(const FarProcess& process) {
  const PagerStats& stats = process.stats;
  const auto count = [](std::uint64_t number) { return count_text(static_cast<double>(number)); };
  Table table{{{"WHAT"}, {"NUMBER", Table::Align::kRight}}};
  table.add({"local memory now", pages_text(stats.pages_local)});
  table.add({"local memory allowed", pages_text(stats.local_limit_pages)});
  table.add({"in staging frames", pages_text(stats.pages_staged)});
  table.add({"remote", pages_text(stats.pages_remote)});
  table.add({"faults", count(stats.faults)});
  table.add({"  first touch, zeros", count(stats.faults_first)});
  table.add({"  first write to a clean page", count(stats.faults_write)});
  table.add({"  found in a staging frame", count(stats.faults_staged)});
  table.add({"  waited for a memory node", count(stats.faults_remote)});
  table.add({"half of the faults took at most", time_text(fault_time_at(stats.fault_times, 0.5))});
  table.add({"99 % of them at most", time_text(fault_time_at(stats.fault_times, 0.99))});
  table.add({"read from memory nodes", pages_text(stats.pages_read)});
  table.add({"written to memory nodes", pages_text(stats.pages_written)});
  table.add({"evicted without writing", pages_text(stats.evicted_clean)});
  table.add({"evicted as zeros", pages_text(stats.evicted_zero)});
  table.add({"fetched ahead", pages_text(stats.prefetched)});
  table.add({"  of these seen to be used", percent_text(prefetch_accuracy(stats))});
  table.add({"  faults avoided by that", percent_text(prefetch_coverage(stats))});
  table.add({"  not there in time", pages_text(stats.prefetch_late)});
  return fmt::format("{} ({})\n\n{}", process.program, process.process_id, table.text());
}

std::string residency_text(const std::vector<PageState>& states, std::uint32_t columns,
                           std::uint32_t rows) {
  std::string text = "each character is ";
  const std::size_t cells = std::size_t{std::max(columns, 1u)} * std::max(rows, 1u);
  const std::size_t group = std::max<std::size_t>(1, (states.size() + cells - 1) / cells);
  text += pages_text(group) + ":";
  for (const Look& look : kLooks) text += fmt::format("  {} {}", look.letter, look.meaning);
  text += '\n';
  std::size_t column = 0;
  for (std::size_t first = 0; first < states.size(); first += group) {
    text += look_of(state_of_group(states, first, group)).letter;
    if (++column % columns == 0) text += '\n';
  }
  if (column % columns != 0) text += '\n';
  return text;
}

std::string residency_svg(const std::vector<PageState>& states) {
  constexpr std::size_t kColumns = 128;
  constexpr std::size_t kMostRows = 128;
  constexpr int kSide = 6;
  const std::size_t group =
      std::max<std::size_t>(1, (states.size() + kColumns * kMostRows - 1) / (kColumns * kMostRows));
  const std::size_t cells = (states.size() + group - 1) / group;
  const std::size_t rows = (cells + kColumns - 1) / kColumns;
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n",
      kColumns * kSide, rows * kSide + 30);
  // Squares of one colour in a row are one rectangle.
  for (std::size_t cell = 0; cell < cells;) {
    const Look& look = look_of(state_of_group(states, cell * group, group));
    std::size_t run = 1;
    while (cell + run < cells && (cell + run) % kColumns != 0 &&
           &look_of(state_of_group(states, (cell + run) * group, group)) == &look) {
      ++run;
    }
    svg += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" fill=\"{}\"/>\n",
                       cell % kColumns * kSide, cell / kColumns * kSide, run * kSide, kSide,
                       look.colour);
    cell += run;
  }
  std::size_t place = 0;
  for (const Look& look : kLooks) {
    const std::size_t x = place++ * 120;
    svg += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{}\" "
                       "stroke=\"#888\"/><text x=\"{}\" y=\"{}\">{}</text>\n",
                       x, rows * kSide + 12, look.colour, x + 14, rows * kSide + 21, look.meaning);
  }
  return svg + "</svg>\n";
}

}  // namespace isthmus::apps
