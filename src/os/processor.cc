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

bool stay_on_processor(std::uint32_t processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (processor >= CPU_SETSIZE) return false;
  CPU_SET(processor, &set);
  return sched_setaffinity(0, sizeof set, &set) == 0;
}

std::uint32_t thread_id() { return static_cast<std::uint32_t>(syscall(SYS_gettid)); }

}  // namespace isthmus::os
