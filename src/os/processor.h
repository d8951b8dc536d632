// Processors: where threads run. Waking a thread on another processor costs tens of microseconds on
// a virtual machine, on the same one less than two.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace isthmus::os {

std::uint32_t thread_id();

// Those on which this thread may run.
std::vector<std::uint32_t> usable_processors();

// Where that thread of this process ran last. About 5 µs.
std::optional<std::uint32_t> processor_of_thread(std::uint32_t thread_id);

// From now on this thread runs there only. False: not allowed.
bool stay_on_processor(std::uint32_t processor);

// Keeps another thread of this process on one processor while it lives; then the thread may run
// where it might before, unless somebody has changed that meanwhile.
class ProcessorHold {
 public:
  // None: there is no such thread, or it may not.
  static std::unique_ptr<ProcessorHold> take(std::uint32_t thread_id, std::uint32_t processor);
  ~ProcessorHold();
  ProcessorHold(const ProcessorHold&) = delete;
  ProcessorHold& operator=(const ProcessorHold&) = delete;

  std::uint32_t processor() const;

 private:
  struct Before;
  explicit ProcessorHold(std::unique_ptr<Before> before);

  std::unique_ptr<Before> before_;
};

}  // namespace isthmus::os
