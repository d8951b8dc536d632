#include "apps/isthmus_screen.h"

#include <fmt/format.h>

#include <cstdio>
#include <sstream>

#include "os/terminal.h"

namespace isthmus::apps {
namespace {

constexpr const char* kEnterScreen = "\x1b[?1049h\x1b[?25l";  // The other screen, no cursor.
constexpr const char* kLeaveScreen = "\x1b[?25h\x1b[?1049l";
constexpr const char* kHome = "\x1b[H";
constexpr const char* kClearLine = "\x1b[K";
constexpr const char* kClearBelow = "\x1b[J";

std::string cut_to_terminal(const std::string& text) {
  const os::TerminalSize size = os::terminal_size();
  std::istringstream lines{text};
  std::string out = kHome;
  unsigned row = 0;
  for (std::string line; row + 1 < size.rows && std::getline(lines, line); ++row) {
    out += line.substr(0, size.columns) + kClearLine + "\r\n";
  }
  return out + kClearBelow + "q ends";
}

}  // namespace

LiveScreen::LiveScreen(Kind kind) : kind_(kind) {
  if (kind_ == Kind::kLive) fmt::print("{}", kEnterScreen);
}

LiveScreen::~LiveScreen() { leave(); }

void LiveScreen::draw(const std::string& text) {
  fmt::print("{}", kind_ == Kind::kLive ? cut_to_terminal(text) : text);
  std::fflush(stdout);
}

void LiveScreen::leave() {
  if (kind_ == Kind::kLive) fmt::print("{}", kLeaveScreen);
  kind_ = Kind::kPlain;
  std::fflush(stdout);
}

}  // namespace isthmus::apps
