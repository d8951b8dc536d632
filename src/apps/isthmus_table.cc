#include "apps/isthmus_table.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/assert.h"

namespace isthmus::apps {
namespace {

// Terminal cells, for text that is UTF-8 and mostly Latin: bytes that begin a character.
std::size_t width_of(const std::string& text) {
  return static_cast<std::size_t>(
      std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string printable(std::string text) {
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f) c = '?';
  }
  return text;
}

std::string scaled(double value, double step, const std::array<const char*, 5>& units,
                   const char* format_small) {
  std::size_t unit = 0;
  while (value >= step && unit + 1 < units.size()) {
    value /= step;
    ++unit;
  }
  if (unit == 0) return fmt::format(fmt::runtime(format_small), value, units[0]);
  return fmt::format("{:.{}f}{}", value, value < 10 ? 2 : value < 100 ? 1 : 0, units[unit]);
}

}  // namespace

void Table::add(std::vector<std::string> cells) {
  ISTHMUS_ASSERT(cells.size() == columns_.size());
  std::ranges::transform(cells, cells.begin(), printable);
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<std::size_t> widths;
  for (const auto& column : columns_) widths.push_back(width_of(column.title));
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  }
  std::string out;
  const auto put = [&](auto cell_of) {
    std::string line;
    for (std::size_t i = 0; i < columns_.size(); ++i) {
      const std::string& cell = cell_of(i);
      const std::string space(widths[i] - width_of(cell), ' ');
      if (i != 0) line += "  ";
      line += columns_[i].align == Align::kRight ? space + cell : cell + space;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  put([&](std::size_t i) -> const std::string& { return columns_[i].title; });
  for (const auto& row : rows_) {
    put([&](std::size_t i) -> const std::string& { return row[i]; });
  }
  return out;
}

std::string bytes_text(std::uint64_t bytes) {
  return scaled(static_cast<double>(bytes), 1024, {" B", " KiB", " MiB", " GiB", " TiB"},
                "{:.0f}{}");
}

std::string count_text(double count) {
  return scaled(count, 1000, {"", "k", "M", "G", "T"}, "{:.0f}{}");
}

std::string rate_text(double bytes_per_second) {
  return scaled(bytes_per_second, 1000, {" B/s", " kB/s", " MB/s", " GB/s", " TB/s"}, "{:.0f}{}");
}

std::string duration_text(std::uint64_t ns) {
  const std::uint64_t seconds = ns / 1'000'000'000;
  const std::uint64_t minutes = seconds / 60;
  const std::uint64_t hours = minutes / 60;
  if (minutes == 0) return fmt::format("{}s", seconds);
  if (hours == 0) return fmt::format("{}m {}s", minutes, seconds % 60);
  if (hours < 24) return fmt::format("{}h {}m", hours, minutes % 60);
  return fmt::format("{}d {}h", hours / 24, hours % 24);
}

}  // namespace isthmus::apps
