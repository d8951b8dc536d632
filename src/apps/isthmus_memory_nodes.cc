#include "apps/isthmus_memory_nodes.h"

#include <algorithm>

#include "apps/isthmus_directory.h"
#include "farmem/node_address.h"

namespace isthmus::apps {

Result<std::vector<farmem::MemoryNodeEntry>> list_memory_nodes(const std::string& directory) {
  const auto opened = ISTHMUS_TRY(open_directory(directory));
  return farmem::list_memory_nodes(*opened);
}

Result<std::string> find_lending_nodes(const std::string& directory) {
  auto nodes = ISTHMUS_TRY(list_memory_nodes(directory));
  std::erase_if(nodes, [](const farmem::MemoryNodeEntry& node) {
    return node.state != farmem::MemoryNodeState::kServing || node.free_bytes == 0;
  });
  if (nodes.empty()) {
    const std::string place = directory.empty() ? default_directory() : directory;
    return fail(ErrorCode::kNotFound,
                "the directory %s has no memory node with free memory; start one with `isthmus "
                "memory serve`, or name another directory with --directory",
                place.c_str());
  }
  std::ranges::stable_sort(nodes, std::ranges::greater{}, &farmem::MemoryNodeEntry::free_bytes);
  std::string list;
  for (const farmem::MemoryNodeEntry& node : nodes) {
    list += (list.empty() ? "" : ",") +
            farmem::NodeAddress{.host = node.address, .port = node.port}.text();
  }
  return list;
}

}  // namespace isthmus::apps
