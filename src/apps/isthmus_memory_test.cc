// Goal: `isthmus memory serve` passes on what it was told; names and directories are as documented.
// Method: words of options parsed again by the node's own definitions; the environment changed.
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>

#include "apps/isthmus_directory.h"
#include "apps/isthmus_memory_nodes.h"
#include "apps/isthmus_memory_options.h"
#include "farmem/registry/temporary_directory.h"

namespace isthmus::apps {
namespace {

MemoryServeOptions parse(std::vector<std::string> words) {
  MemoryServeOptions options;
  CLI::App app;
  declare_serve_options(app, options);
  std::ranges::reverse(words);  // As CLI11 wants them.
  app.parse(words);
  return options;
}

TEST(MemoryServe, PassesOnWhatItWasTold) {
  const MemoryServeOptions told =
      parse({"--size", "8G", "--bind", "10.0.0.1", "--port", "1", "--name", "a b", "--directory",
             "etcd://x:1", "--slab", "1M", "--lease", "500", "--json"});
  EXPECT_EQ(told.bytes, 8ull << 30);
  EXPECT_EQ(told.slab_bytes, 1u << 20);
  const MemoryServeOptions again = parse(words_of(told));
  EXPECT_EQ(again.bytes, told.bytes);
  EXPECT_EQ(again.slab_bytes, told.slab_bytes);
  EXPECT_EQ(again.bind, "10.0.0.1");
  EXPECT_EQ(again.port, 1);
  EXPECT_EQ(again.name, "a b");
  EXPECT_EQ(again.directory, "etcd://x:1");
  EXPECT_EQ(again.lease_ms, 500u);
  EXPECT_TRUE(again.json);
  EXPECT_THROW(parse({"--size", "much"}), CLI::ParseError);
  EXPECT_THROW(parse({}), CLI::ParseError);
}

TEST(MemoryServe, NamesNodesByWhatDistinguishesThem) {
  EXPECT_EQ(node_name_of({.name = "n", .directory = {}}), "n");
  EXPECT_EQ(node_name_of({.bind = "10.0.0.1", .name = {}, .directory = {}}), "10.0.0.1");
  EXPECT_EQ(node_name_of({.bind = "10.0.0.1", .port = 7, .name = {}, .directory = {}}),
            "10.0.0.1-7");
}

TEST(MemoryNodes, AreFoundMostFreeFirst) {
  const farmem::TemporaryDirectory folder;
  EXPECT_FALSE(find_lending_nodes(folder.file()));
  const auto directory = folder.open();
  const auto put = [&](const char* name, std::uint64_t free, farmem::MemoryNodeState state) {
    const farmem::MemoryNodeEntry entry{.name = name, .address = name, .port = 5, .bytes = 100,
                                        .free_bytes = free, .state = state, .version = "1"};
    ASSERT_TRUE(directory->put("memory/nodes/" + entry.name, farmem::encode_node_entry(entry)));
  };
  put("a", 10, farmem::MemoryNodeState::kServing);
  put("b", 30, farmem::MemoryNodeState::kServing);
  put("c", 90, farmem::MemoryNodeState::kDraining);
  put("d", 0, farmem::MemoryNodeState::kServing);
  EXPECT_EQ(*find_lending_nodes(folder.file()), "b:5,a:5");
  EXPECT_EQ(list_memory_nodes(folder.file())->size(), 4u);
}

TEST(DirectoryPlace, IsWhatTheEnvironmentSays) {
  setenv("ISTHMUS_DIRECTORY", "etcd://x:1", 1);
  EXPECT_EQ(default_directory(), "etcd://x:1");
  unsetenv("ISTHMUS_DIRECTORY");
  EXPECT_TRUE(default_directory().ends_with("/isthmus/directory.db"));
}

}  // namespace
}  // namespace isthmus::apps
