// isthmus memory serve, ls, drain.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "apps/isthmus_directory.h"
#include "apps/isthmus_memory_nodes.h"
#include "apps/isthmus_options.h"
#include "apps/isthmus_table.h"
#include "os/child_process.h"
#include "os/clock.h"
#include "os/poll.h"
#include "os/text_file.h"

namespace isthmus::apps {
namespace {

constexpr const char* kNodeProgram = "isthmus-memory-node";
constexpr std::uint64_t kLookNs = 200 * os::kNsPerMs;

std::string nodes_text(const std::vector<farmem::MemoryNodeEntry>& nodes) {
  using Align = Table::Align;
  Table table{{{"NAME"},
               {"ADDRESS"},
               {"SIZE", Align::kRight},
               {"FREE", Align::kRight},
               {"STATE"},
               {"VERSION"}}};
  for (const farmem::MemoryNodeEntry& node : nodes) {
    table.add({node.name, fmt::format("{}:{}", node.address, node.port), bytes_text(node.bytes),
               bytes_text(node.free_bytes), to_string(node.state), node.version});
  }
  return table.text();
}

// Until nothing is lent any more, or the node is gone.
Result<void> await_empty(const MemoryOptions& options) {
  const auto directory = ISTHMUS_TRY(open_directory(options.directory));
  while (true) {
    const auto nodes = ISTHMUS_TRY(farmem::list_memory_nodes(*directory));
    const auto node = std::ranges::find(nodes, options.node, &farmem::MemoryNodeEntry::name);
    if (node == nodes.end()) return {};
    if (node->state == farmem::MemoryNodeState::kDraining && node->free_bytes == node->bytes) {
      return {};
    }
    os::wait_readable({}, kLookNs);
  }
}

}  // namespace

CommandResult serve_memory(const GlobalOptions& global, const MemoryOptions& options) {
  namespace fs = std::filesystem;
  const fs::path beside = fs::path(os::own_program_path()).parent_path() / kNodeProgram;
  RunOptions run;
  run.label = "memory-node";
  run.command = {os::path_exists(beside) ? beside.string() : kNodeProgram};
  std::ranges::copy(words_of(options.serve), std::back_inserter(run.command));
  return run_program(global, run);
}

CommandResult list_memory(const MemoryOptions& options) {
  const auto nodes = ISTHMUS_TRY(list_memory_nodes(options.directory));
  if (options.json) {
    fmt::print("{}\n", farmem::node_entries_json(nodes));
  } else if (nodes.empty()) {
    fmt::print("no memory node; `isthmus memory serve --size 8G` starts one\n");
  } else {
    fmt::print("{}", nodes_text(nodes));
  }
  return kExitDone;
}

CommandResult drain_memory(const MemoryOptions& options) {
  const auto request =
      options.undo ? farmem::DrainRequest::kServeAgain : farmem::DrainRequest::kDrain;
  {
    const auto directory = ISTHMUS_TRY(open_directory(options.directory));
    ISTHMUS_TRY_VOID(farmem::request_drain(*directory, options.node, request));
  }
  if (options.undo) {
    fmt::print("{} lends memory again\n", options.node);
    return kExitDone;
  }
  if (options.wait) {
    ISTHMUS_TRY_VOID(await_empty(options));
    fmt::print("{} has lent nothing any more\n", options.node);
  } else {
    fmt::print("{} lends no more memory; what is lent comes back when its programs end\n",
               options.node);
  }
  return kExitDone;
}

}  // namespace isthmus::apps
