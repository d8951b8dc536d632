// MemoryNodeEntry: what the directory knows of a memory node.
//
// A node keeps its entry under kNodeKeys and its name, as JSON, attached to a lease of its own: the
// entry of a node that is gone vanishes. A key under kDrainKeys with the same name asks the node to
// give no more leases; it stays until somebody takes it back.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cluster/directory/directory.h"

namespace isthmus::farmem {

constexpr std::string_view kNodeKeys = "memory/nodes/";
constexpr std::string_view kDrainKeys = "memory/drain/";

enum class MemoryNodeState : std::uint8_t {
  kServing,
  kDraining,  // What it has lent stays lent; it lends no more.
};
const char* to_string(MemoryNodeState state);

struct MemoryNodeEntry {
  std::string name;  // Of the key, not in the value.
  std::string address;
  std::uint16_t port = 0;
  std::uint64_t bytes = 0;
  std::uint64_t free_bytes = 0;
  MemoryNodeState state = MemoryNodeState::kServing;
  std::string version;

  friend bool operator==(const MemoryNodeEntry&, const MemoryNodeEntry&) = default;
};

std::string encode_node_entry(const MemoryNodeEntry& entry);
// kInvalid: not what a node writes.
Result<MemoryNodeEntry> decode_node_entry(std::string_view name, std::string_view value);

// By name. Entries that make no sense are left out, with a warning.
Result<std::vector<MemoryNodeEntry>> list_memory_nodes(cluster::Directory& directory);

// For people and programs.
std::string node_entries_json(const std::vector<MemoryNodeEntry>& entries);

// kInvalid: not to be a part of a key: empty, too long, or with a slash or a control character.
Result<void> check_node_name(std::string_view name);

// kNotFound: no such node, when it is asked to drain.
enum class DrainRequest : std::uint8_t { kDrain, kServeAgain };
Result<void> request_drain(cluster::Directory& directory, std::string_view name,
                           DrainRequest request);

}  // namespace isthmus::farmem
