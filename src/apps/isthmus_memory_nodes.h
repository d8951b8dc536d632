// The memory nodes that a directory knows: what `isthmus run --far-memory` and `isthmus memory`
// go by.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "farmem/registry/node_entry.h"

namespace isthmus::apps {

// `directory` as in open_directory(); by name, also those that are full or draining.
Result<std::vector<farmem::MemoryNodeEntry>> list_memory_nodes(const std::string& directory);

// "HOST:PORT,HOST:PORT": those that lend memory, most free first. kNotFound: none does.
Result<std::string> find_lending_nodes(const std::string& directory);

}  // namespace isthmus::apps
