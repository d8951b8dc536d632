// ISTHMUS_LOG(level, "format", ...): one line to standard error, printf style.
//
// The libraries live in other people's processes, so a line is one write, nothing is buffered and
// no logging library comes along. What a peer can cause a million times a second is counted, not
// logged. ISTHMUS_LOG_LEVEL (error, warning, info, debug) sets what is printed; default warning.
#pragma once

namespace isthmus {

enum class LogLevel { kError, kWarning, kInfo, kDebug };

// The level of this process: from the environment, unless set_log_level was called.
LogLevel log_level();
void set_log_level(LogLevel level);

// Threading: any thread.
[[gnu::format(printf, 2, 3)]] void log_line(LogLevel level, const char* format, ...);

}  // namespace isthmus

#define ISTHMUS_LOG(level, ...)                                                   \
  (::isthmus::LogLevel::level <= ::isthmus::log_level()                           \
       ? ::isthmus::log_line(::isthmus::LogLevel::level, __VA_ARGS__) \
       : void(0))
