// isthmus memory stats, top, map: programs of this machine whose memory is far, as seen from
// outside.
#include <fmt/format.h>

#include "apps/isthmus_far_text.h"
#include "apps/isthmus_json.h"
#include "apps/isthmus_options.h"
#include "apps/isthmus_screen.h"
#include "farmem/view.h"
#include "os/clock.h"
#include "os/terminal.h"
#include "os/text_file.h"

namespace isthmus::apps {
namespace {

std::string program_of(std::int32_t process_id) {
  auto name = os::read_text_file("/proc/" + std::to_string(process_id) + "/comm");
  if (!name) return "?";
  while (name->ends_with('\n')) name->pop_back();
  return *name;
}

Result<FarProcess> look_at(std::int32_t process_id) {
  const auto view = ISTHMUS_TRY(farmem::View::open(process_id));
  return FarProcess{process_id, program_of(process_id), ISTHMUS_TRY(view->stats())};
}

// Those that end meanwhile are left out.
std::vector<FarProcess> look_at_all() {
  std::vector<FarProcess> processes;
  for (const std::int32_t process_id : farmem::View::list()) {
    if (auto process = look_at(process_id)) processes.push_back(std::move(*process));
  }
  return processes;
}

std::string all_text(const std::vector<FarProcess>& processes) {
  if (processes.empty()) {
    return "no program of this machine has far memory, as far as you may see; `isthmus run "
           "--local-memory 256M --far-memory 4G -- PROGRAM` starts one\n";
  }
  return far_processes_text(processes);
}

}  // namespace

CommandResult show_memory_stats(const MemoryOptions& options) {
  if (options.process_id != 0) {
    const FarProcess process = ISTHMUS_TRY(look_at(options.process_id));
    fmt::print("{}", options.json ? far_processes_json({process}) : far_process_text(process));
    return kExitDone;
  }
  const auto processes = look_at_all();
  fmt::print("{}", options.json ? far_processes_json(processes) : all_text(processes));
  return kExitDone;
}

CommandResult show_memory_top(const MemoryOptions& options) {
  const bool live = !options.once && os::output_is_terminal();
  const auto watch = ISTHMUS_TRY(
      os::QuitWatch::create(live ? os::QuitWatch::Keys::kWatch : os::QuitWatch::Keys::kIgnore));
  LiveScreen screen(live ? LiveScreen::Kind::kLive : LiveScreen::Kind::kPlain);
  const auto interval_ns =
      static_cast<std::uint64_t>(options.interval_seconds * static_cast<double>(os::kNsPerSecond));
  do {
    std::string text;
    if (options.process_id != 0) {
      text = far_process_text(ISTHMUS_TRY(look_at(options.process_id)));
    } else {
      text = all_text(look_at_all());
    }
    screen.draw(text);
  } while (!options.once && watch->wait(interval_ns) != os::QuitVerdict::kQuit);
  return kExitDone;
}

CommandResult show_memory_map(const MemoryOptions& options) {
  const auto view = ISTHMUS_TRY(farmem::View::open(options.process_id));
  const auto states = ISTHMUS_TRY(view->states());
  if (options.svg_file.empty()) {
    const os::TerminalSize size = os::terminal_size();
    const unsigned rows = size.rows > 4 ? size.rows - 3 : 20;
    fmt::print("{}", residency_text(states, size.columns, rows));
    return kExitDone;
  }
  ISTHMUS_TRY_VOID(os::write_text_file(options.svg_file, residency_svg(states),
                                       os::TextFileAccess::kEverybody));
  fmt::print("wrote {}\n", options.svg_file);
  return kExitDone;
}

}  // namespace isthmus::apps
