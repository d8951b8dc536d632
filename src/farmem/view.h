// The view: how others look at a pager from outside, without its help.
//
// A memory file, which anybody who may look into the process finds among its descriptors by its
// name, says at which addresses the pager keeps its numbers and its pages' states; whoever looks
// reads them there as a debugger would. The program is not stopped and spends nothing on it. At its
// end the program writes the last numbers into the file itself.
//
// Input: what is read comes from another process; nothing of it may trip an assertion.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "farmem/page_table.h"
#include "farmem/pager.h"
#include "farmem/stats.h"
#include "os/fd.h"
#include "os/shared_memory.h"

namespace isthmus::farmem {

// What is in the memory file.
struct ViewHeader {
  static constexpr std::uint64_t kMagic = 0x316d656d72616669;  // "ifarmem1" in memory.

  std::uint64_t magic = kMagic;
  std::uint32_t process_id = 0;  // A child of fork() has the file too, but not this.
  std::uint32_t page_count = 0;
  std::uint64_t region_start = 0;
  std::uint64_t stats_address = 0;
  std::uint64_t states_address = 0;  // One byte a page.
  std::uint64_t delivery = 0;
  std::uint64_t ended = 0;  // 1: `last` is valid.
  PagerStats last{};
};

class ViewPublisher {
 public:
  static Result<std::unique_ptr<ViewPublisher>> create(const Pager& pager);

  // The program ends now. In a child of fork(), which has no view, nothing.
  void write_last();

 private:
  ViewPublisher(const Pager& pager, os::Fd file, std::unique_ptr<os::Mapping> mapping)
      : pager_(pager), file_(std::move(file)), mapping_(std::move(mapping)) {}

  const Pager& pager_;
  os::Fd file_;
  std::unique_ptr<os::Mapping> mapping_;
};

class View {
 public:
  // kNotFound: no such process, or its memory is not far; kDenied: not ours to look into.
  static Result<std::unique_ptr<View>> open(std::int32_t process_id);
  // Processes of this machine whose memory is far, as far as we may look.
  static std::vector<std::int32_t> list();

  const ViewHeader& header() const { return header_; }
  // Now, or at the program's end. kClosed: it ended without a word.
  Result<PagerStats> stats();
  Result<std::vector<PageState>> states();

 private:
  View(std::int32_t process_id, os::Fd file) : process_id_(process_id), file_(std::move(file)) {}

  Result<void> read_header();
  Result<void> read_memory(std::uint64_t address, void* to, std::size_t bytes) const;

  std::int32_t process_id_;
  os::Fd file_;
  ViewHeader header_;
};

}  // namespace isthmus::farmem
