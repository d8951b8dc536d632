// The command line of a memory node: of `isthmus memory serve`, which passes it on, and of
// isthmus-memory-node itself.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace isthmus::apps {

struct MemoryServeOptions {
  std::uint64_t bytes = 0;
  std::uint64_t slab_bytes = 64u << 20;
  std::string bind;
  std::uint16_t port = 7471;
  std::uint32_t lease_ms = 10'000;
  std::string name;       // Empty: the host's, with what distinguishes this node on it.
  std::string directory;  // Empty: default_directory(); "none": in no directory.
  bool json = false;
};

void declare_serve_options(CLI::App& app, MemoryServeOptions& options);

// The same options as words.
std::vector<std::string> words_of(const MemoryServeOptions& options);

std::string node_name_of(const MemoryServeOptions& options);

}  // namespace isthmus::apps
