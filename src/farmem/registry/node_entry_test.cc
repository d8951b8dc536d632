// Goal: what nodes write into the directory is read as it was meant, and nothing else is believed.
// Method: entries through JSON; values of others; a directory in a file.
#include "farmem/registry/node_entry.h"

#include <gtest/gtest.h>

#include "cluster/directory/sqlite_directory.h"
#include "farmem/registry/temporary_directory.h"

namespace isthmus::farmem {
namespace {

MemoryNodeEntry some_entry() {
  return {.name = "one",
          .address = "10.0.0.1",
          .port = 7471,
          .bytes = 8ull << 30,
          .free_bytes = 1ull << 30,
          .state = MemoryNodeState::kDraining,
          .version = "0.1"};
}

TEST(NodeEntry, ComesBackFromJson) {
  const auto entry = decode_node_entry("one", encode_node_entry(some_entry()));
  ASSERT_TRUE(entry);
  EXPECT_EQ(*entry, some_entry());
}

TEST(NodeEntry, BelievesNothingElse) {
  for (const char* value :
       {"", "{", "[]", "7", "{}", R"({"address":"a"})",
        R"({"address":"","port":1,"size":1,"free":1,"state":"serving","version":""})",
        R"({"address":"a","port":0,"size":1,"free":1,"state":"serving","version":""})",
        R"({"address":"a","port":65536,"size":1,"free":1,"state":"serving","version":""})",
        R"({"address":"a","port":1,"size":-1,"free":1,"state":"serving","version":""})",
        R"({"address":"a","port":1,"size":"1","free":1,"state":"serving","version":""})",
        R"({"address":"a","port":1,"size":1,"free":1,"state":"asleep","version":""})",
        R"({"address":1,"port":1,"size":1,"free":1,"state":"serving","version":""})"}) {
    EXPECT_FALSE(decode_node_entry("one", value)) << value;
  }
}

TEST(NodeEntry, PrintsBytesThatAreNoText) {
  MemoryNodeEntry entry = some_entry();
  entry.name = "bad\xff";
  EXPECT_NE(node_entries_json({entry}).find("10.0.0.1"), std::string::npos);
}

TEST(NodeEntry, NamesAreParts) {
  EXPECT_TRUE(check_node_name("host-1.example"));
  for (const std::string& name : {std::string(), std::string("a/b"), std::string("a\nb"),
                                  std::string(129, 'x')}) {
    EXPECT_FALSE(check_node_name(name)) << name;
  }
}

TEST(NodeEntry, ListsWhatMakesSense) {
  const TemporaryDirectory folder;
  const auto directory = folder.open();
  ASSERT_TRUE(directory->put("memory/nodes/b", encode_node_entry(some_entry())));
  ASSERT_TRUE(directory->put("memory/nodes/a", encode_node_entry(some_entry())));
  ASSERT_TRUE(directory->put("memory/nodes/c", "nonsense"));
  ASSERT_TRUE(directory->put("memory/other", "{}"));
  const auto nodes = list_memory_nodes(*directory);
  ASSERT_TRUE(nodes);
  ASSERT_EQ(nodes->size(), 2u);
  EXPECT_EQ(nodes->front().name, "a");
  EXPECT_EQ(nodes->back().name, "b");
}

TEST(NodeEntry, DrainsOnlyNodesThatAreThere) {
  const TemporaryDirectory folder;
  const auto directory = folder.open();
  const auto missing = request_drain(*directory, "one", DrainRequest::kDrain);
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, ErrorCode::kNotFound);
  ASSERT_TRUE(directory->put("memory/nodes/one", encode_node_entry(some_entry())));
  EXPECT_TRUE(request_drain(*directory, "one", DrainRequest::kDrain));
  EXPECT_TRUE(directory->get("memory/drain/one"));
  EXPECT_TRUE(request_drain(*directory, "one", DrainRequest::kServeAgain));
  EXPECT_FALSE(directory->get("memory/drain/one"));
}

}  // namespace
}  // namespace isthmus::farmem
