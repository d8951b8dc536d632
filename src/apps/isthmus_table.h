// A table of text for people: columns as wide as their widest cell, numbers to the right.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace isthmus::apps {

class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  // As many cells as there are columns. Control characters in them are replaced: labels and
  // program names come from others.
  void add(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  std::string text() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// "1.5 GiB", "12 KiB", "7 B".
std::string bytes_text(std::uint64_t bytes);
// "1.5M", "12k", "7": messages or packets.
std::string count_text(double count);
// "1.50 GB/s", decimal as networks count.
std::string rate_text(double bytes_per_second);
// "3d 4h", "4h 5m", "5m 6s", "6s".
std::string duration_text(std::uint64_t ns);

}  // namespace isthmus::apps
