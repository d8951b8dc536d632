#include "apps/isthmus_memory_options.h"

#include <CLI/CLI.hpp>

#include "apps/isthmus_run_memory.h"
#include "os/process.h"

namespace isthmus::apps {

namespace {

// Text as `isthmus run --far-memory` takes it becomes a number of bytes.
CLI::Validator size_of_text() {
  const auto convert = [](std::string& text) {
    const auto bytes = parse_size(text);
    if (!bytes) return bytes.error().message;
    text = std::to_string(*bytes);
    return std::string();
  };
  return CLI::Validator(convert, "BYTES");
}

}  // namespace

void declare_serve_options(CLI::App& app, MemoryServeOptions& options) {
  app.add_option("--size", options.bytes, "How much memory to donate, such as 8G or 512M")
      ->transform(size_of_text())
      ->type_name("BYTES")
      ->required();
  app.add_option("--bind", options.bind, "Serve at this local address only (default: all)")
      ->type_name("ADDRESS");
  app.add_option("--port", options.port, "Port of the connection manager")
      ->type_name("PORT")
      ->capture_default_str();
  app.add_option("--name", options.name, "Name in the directory (default: the host's)")
      ->type_name("NAME");
  app.add_option("--directory", options.directory,
                 "SQLite file or etcd://HOST:PORT; none: in no directory (default: "
                 "$ISTHMUS_DIRECTORY or the usual place)")
      ->type_name("FILE");
  app.add_option("--slab", options.slab_bytes, "What is lent at a time; the same on all nodes")
      ->transform(size_of_text())
      ->type_name("BYTES")
      ->default_str("64M");
  app.add_option("--lease", options.lease_ms,
                 "Take back what was lent to a program that is silent for so long")
      ->type_name("MILLISECONDS")
      ->capture_default_str();
  app.add_flag("--json", options.json, "Say in JSON where it serves");
}

std::vector<std::string> words_of(const MemoryServeOptions& options) {
  std::vector<std::string> words{"--size",  std::to_string(options.bytes),
                                 "--port",  std::to_string(options.port),
                                 "--slab",  std::to_string(options.slab_bytes),
                                 "--lease", std::to_string(options.lease_ms)};
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) words.insert(words.end(), {option, value});
  };
  add("--bind", options.bind);
  add("--name", options.name);
  add("--directory", options.directory);
  if (options.json) words.push_back("--json");
  return words;
}

std::string node_name_of(const MemoryServeOptions& options) {
  if (!options.name.empty()) return options.name;
  const std::string host = options.bind.empty() ? os::host_name() : options.bind;
  return options.port == MemoryServeOptions{}.port ? host
                                                   : host + "-" + std::to_string(options.port);
}

}  // namespace isthmus::apps
