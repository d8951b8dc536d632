#include "base/log.h"

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace isthmus {
namespace {

constexpr int kUnset = -1;
constinit std::atomic<int> level_of_process{kUnset};

LogLevel level_from_environment() {
  const char* value = std::getenv("ISTHMUS_LOG_LEVEL");
  const std::string_view name = value ? value : "";
  if (name == "error") return LogLevel::kError;
  if (name == "info") return LogLevel::kInfo;
  if (name == "debug") return LogLevel::kDebug;
  return LogLevel::kWarning;
}

const char* name_of(LogLevel level) {
  switch (level) {
    case LogLevel::kError: return "error: ";
    case LogLevel::kWarning: return "warning: ";
    case LogLevel::kInfo: return "";
    case LogLevel::kDebug: return "debug: ";
  }
  return "";
}

}  // namespace

LogLevel log_level() {
  int level = level_of_process.load(std::memory_order_relaxed);  // Alone: no data depends on it.
  if (level == kUnset) {
    level = static_cast<int>(level_from_environment());
    level_of_process.store(level, std::memory_order_relaxed);
  }
  return static_cast<LogLevel>(level);
}

void set_log_level(LogLevel level) { level_of_process = static_cast<int>(level); }

void log_line(LogLevel level, const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "isthmus: %s%s\n", name_of(level), text);
}

}  // namespace isthmus
