#include "os/processor.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "os/fd.h"

namespace isthmus::os {

std::optional<std::uint32_t> processor_of_thread(std::uint32_t thread_id) {
  std::array<char, 64> path;
  std::snprintf(path.data(), path.size(), "/proc/self/task/%u/stat", thread_id);
  const Fd file{::open(path.data(), O_RDONLY | O_CLOEXEC)};
  std::array<char, 1024> text;
  const ssize_t length = file ? ::read(file.get(), text.data(), text.size() - 1) : -1;
  if (length <= 0) return std::nullopt;
  text[static_cast<std::size_t>(length)] = '\0';
  // The name, field 2, ends with the last parenthesis; the processor is field 39.
  const std::string_view all(text.data(), static_cast<std::size_t>(length));
  std::size_t at = all.rfind(')');
  for (int field = 2; field < 39 && at != std::string_view::npos; ++field) {
    at = all.find(' ', at + 1);
  }
  if (at == std::string_view::npos) return std::nullopt;
  return static_cast<std::uint32_t>(std::strtoul(text.data() + at, nullptr, 10));
}

std::vector<std::uint32_t> usable_processors() {
  std::vector<std::uint32_t> found;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return found;
  for (std::uint32_t processor = 0; processor < CPU_SETSIZE; ++processor) {
    if (CPU_ISSET(processor, &set)) found.push_back(processor);
  }
  return found;
}

bool stay_on_processor(std::uint32_t processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (processor >= CPU_SETSIZE) return false;
  CPU_SET(processor, &set);
  return sched_setaffinity(0, sizeof set, &set) == 0;
}

struct ProcessorHold::Before {
  std::uint32_t thread_id;
  std::uint32_t processor;
  cpu_set_t set;
};

std::unique_ptr<ProcessorHold> ProcessorHold::take(std::uint32_t thread_id,
                                                   std::uint32_t processor) {
  auto before = std::make_unique<Before>();
  before->thread_id = thread_id;
  before->processor = processor;
  const auto thread = static_cast<pid_t>(thread_id);
  if (processor >= CPU_SETSIZE ||
      sched_getaffinity(thread, sizeof before->set, &before->set) != 0) {
    return nullptr;
  }
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(processor, &one);
  if (sched_setaffinity(thread, sizeof one, &one) != 0) return nullptr;
  return std::unique_ptr<ProcessorHold>(new ProcessorHold(std::move(before)));
}

ProcessorHold::ProcessorHold(std::unique_ptr<Before> before) : before_(std::move(before)) {}

ProcessorHold::~ProcessorHold() {
  const auto thread = static_cast<pid_t>(before_->thread_id);
  cpu_set_t now;
  if (sched_getaffinity(thread, sizeof now, &now) != 0) return;
  const bool ours = CPU_COUNT(&now) == 1 && CPU_ISSET(before_->processor, &now);
  if (ours) sched_setaffinity(thread, sizeof before_->set, &before_->set);
}

std::uint32_t ProcessorHold::processor() const { return before_->processor; }

std::uint32_t thread_id() { return static_cast<std::uint32_t>(syscall(SYS_gettid)); }

}  // namespace isthmus::os
