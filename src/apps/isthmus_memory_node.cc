// isthmus-memory-node: donates memory of this host to programs of others.
//
// Runs under `isthmus run`, as `isthmus memory serve` starts it. Parses its command line, listens,
// tells the directory, and serves until SIGTERM or SIGINT.
#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <csignal>
#include <cstdio>

#include "apps/isthmus_directory.h"
#include "apps/isthmus_memory_options.h"
#include "apps/isthmus_options.h"
#include "base/log.h"
#include "farmem/node/memory_node.h"
#include "farmem/registry/node_entry.h"
#include "farmem/registry/node_registration.h"
#include "os/memory_calls.h"
#include "os/signal_fd.h"

namespace isthmus::apps {
namespace {

using farmem::MemoryNode;

constexpr const char* kNoDirectory = "none";

int fail_start(const Error& error) {
  fmt::print(stderr, "isthmus-memory-node: {}\n", error.message);
  return kExitFailed;
}

void announce(const MemoryNode& node, const MemoryServeOptions& options) {
  const farmem::MemoryNodeFacts facts = node.facts();
  if (options.json) {
    const farmem::MemoryNodeEntry entry{.name = node_name_of(options),
                                        .address = facts.address,
                                        .port = facts.port,
                                        .bytes = facts.bytes,
                                        .free_bytes = facts.free_bytes,
                                        .state = farmem::MemoryNodeState::kServing,
                                        .version = ISTHMUS_VERSION};
    fmt::print("{}\n", farmem::encode_node_entry(entry));
  } else {
    fmt::print("{}: serving {} MiB at {} port {}\n", node_name_of(options), facts.bytes >> 20,
               facts.address, facts.port);
  }
  std::fflush(stdout);
}

int serve(const MemoryServeOptions& options) {
  const std::uint64_t present = os::physical_memory_bytes();
  if (present != 0 && options.bytes > present) {
    fmt::print(stderr, "isthmus-memory-node: --size {}M is more than this machine has, {}M\n",
               options.bytes >> 20, present >> 20);
    return kExitUsage;
  }
  // Before any thread begins, so that all of them leave these signals to us.
  const auto signals = os::take_signals({SIGTERM, SIGINT});
  if (!signals) return fail_start(signals.error());
  const auto node = MemoryNode::create({.bytes = options.bytes,
                                        .slab_bytes = options.slab_bytes,
                                        .bind = options.bind,
                                        .port = options.port,
                                        .lease_ms = options.lease_ms});
  if (!node) return fail_start(node.error());
  std::unique_ptr<farmem::NodeRegistration> registration;
  if (options.directory != kNoDirectory) {
    auto started = farmem::NodeRegistration::start(
        {.name = node_name_of(options),
         .version = ISTHMUS_VERSION,
         .facts = [&node] { return (*node)->facts(); },
         .set_draining = [&node](bool draining) { (*node)->set_draining(draining); },
         .changed_fd = (*node)->changed_fd()},
        [&options] { return open_directory(options.directory); });
    if (!started) return fail_start(started.error());
    registration = std::move(*started);
  }
  announce(**node, options);
  const auto served = (*node)->run(*signals);
  return served ? kExitDone : fail_start(served.error());
}

}  // namespace
}  // namespace isthmus::apps

int main(int argc, char** argv) {
  using namespace isthmus;
  apps::MemoryServeOptions options;
  CLI::App app{"Donates memory of this host to programs of others.", "isthmus-memory-node"};
  apps::declare_serve_options(app, options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? apps::kExitDone : apps::kExitUsage;
  }
  set_log_level(LogLevel::kInfo);
  return apps::serve(options);
}
