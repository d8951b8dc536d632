// A picture of text drawn anew in place, on the terminal's other screen.
#pragma once

#include <string>

namespace isthmus::apps {

class LiveScreen {
 public:
  enum class Kind { kLive, kPlain };

  explicit LiveScreen(Kind kind);
  ~LiveScreen();
  LiveScreen(const LiveScreen&) = delete;
  LiveScreen& operator=(const LiveScreen&) = delete;

  // Live: cut to the terminal, each line cleared to its end, so that nothing flickers.
  void draw(const std::string& text);
  void leave();

 private:
  Kind kind_;
};

}  // namespace isthmus::apps
