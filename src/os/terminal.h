// The terminal: its size, single keys, and a wait that a key or a signal ends.
#pragma once

#include <cstdint>
#include <memory>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

struct TerminalSize {
  unsigned rows = 24;
  unsigned columns = 80;
};

// Whether standard output is a terminal, and how large it is; the default of TerminalSize if not.
bool output_is_terminal();
TerminalSize terminal_size();

enum class QuitVerdict {
  kQuit,     // q, Q, escape, or SIGINT, SIGTERM, SIGHUP: end.
  kTimeout,  // The time is over; go on.
  kRedraw,   // The terminal has another size.
};

// While it lives, those signals arrive here instead of ending the process, and the keys of a
// terminal at standard input come one by one, not echoed. Make it before other threads start: they
// inherit the blocked signals.
class QuitWatch {
 public:
  enum class Keys { kWatch, kIgnore };

  static Result<std::unique_ptr<QuitWatch>> create(Keys keys);
  ~QuitWatch();
  QuitWatch(const QuitWatch&) = delete;
  QuitWatch& operator=(const QuitWatch&) = delete;

  // UINT64_MAX: for ever. Threading: one thread; `interrupt` from any.
  QuitVerdict wait(std::uint64_t timeout_ns);
  // Makes wait() return kQuit.
  void interrupt();

 private:
  struct Saved;
  QuitWatch(Fd signals, Fd interrupted, std::unique_ptr<Saved> saved, bool keys);

  Fd signals_;
  Fd interrupted_;
  std::unique_ptr<Saved> saved_;
  bool keys_;
};

}  // namespace isthmus::os
