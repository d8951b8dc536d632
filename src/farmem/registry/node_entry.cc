#include "farmem/registry/node_entry.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/log.h"

namespace isthmus::farmem {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxNameBytes = 128;

Json json_of(const MemoryNodeEntry& entry) {
  return {{"address", entry.address},       {"port", entry.port},
          {"size", entry.bytes},            {"free", entry.free_bytes},
          {"state", to_string(entry.state)}, {"version", entry.version}};
}

// Names and addresses are bytes of others; what is no UTF-8 must not stop the output.
std::string text_of(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

template <class Number>
bool read_number(const Json& json, const char* key, Number& number) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_number_unsigned()) return false;
  const auto value = found->get<std::uint64_t>();
  number = static_cast<Number>(value);
  return number == value;
}

bool read_text(const Json& json, const char* key, std::string& text) {
  const auto found = json.find(key);
  if (found == json.end() || !found->is_string()) return false;
  text = found->get<std::string>();
  return true;
}

bool read_state(const Json& json, MemoryNodeState& state) {
  std::string text;
  if (!read_text(json, "state", text)) return false;
  for (const auto known : {MemoryNodeState::kServing, MemoryNodeState::kDraining}) {
    if (text != to_string(known)) continue;
    state = known;
    return true;
  }
  return false;
}

}  // namespace

const char* to_string(MemoryNodeState state) {
  switch (state) {
    case MemoryNodeState::kServing: return "serving";
    case MemoryNodeState::kDraining: return "draining";
  }
  return "?";
}

std::string encode_node_entry(const MemoryNodeEntry& entry) { return text_of(json_of(entry), -1); }

Result<MemoryNodeEntry> decode_node_entry(std::string_view name, std::string_view value) {
  const Json json = Json::parse(value, nullptr, false);
  MemoryNodeEntry entry;
  entry.name = name;
  if (!json.is_object() || !read_text(json, "address", entry.address) || entry.address.empty() ||
      !read_number(json, "port", entry.port) || entry.port == 0 ||
      !read_number(json, "size", entry.bytes) || !read_number(json, "free", entry.free_bytes) ||
      !read_state(json, entry.state) || !read_text(json, "version", entry.version)) {
    return fail(ErrorCode::kInvalid, "the directory's entry of memory node %s makes no sense",
                entry.name.c_str());
  }
  return entry;
}

Result<std::vector<MemoryNodeEntry>> list_memory_nodes(cluster::Directory& directory) {
  const cluster::Listing listing = ISTHMUS_TRY(directory.list(kNodeKeys));
  std::vector<MemoryNodeEntry> nodes;
  for (const cluster::Entry& found : listing.entries) {
    auto entry = decode_node_entry(found.key.substr(kNodeKeys.size()), found.value);
    if (entry) {
      nodes.push_back(std::move(*entry));
    } else {
      ISTHMUS_LOG(kWarning, "%s", entry.error().message.c_str());
    }
  }
  return nodes;
}

std::string node_entries_json(const std::vector<MemoryNodeEntry>& entries) {
  Json list = Json::array();
  for (const MemoryNodeEntry& entry : entries) {
    Json json{{"name", entry.name}};
    json.update(json_of(entry));
    list.push_back(std::move(json));
  }
  return text_of(list, 2);
}

Result<void> check_node_name(std::string_view name) {
  const bool fits = !name.empty() && name.size() <= kMaxNameBytes;
  const bool sound = std::ranges::none_of(
      name, [](char c) { return c == '/' || static_cast<unsigned char>(c) < ' ' || c == 0x7f; });
  if (fits && sound) return {};
  return fail(ErrorCode::kInvalid,
              "'%.*s' is no name for a memory node: up to %zu characters, without slashes",
              static_cast<int>(std::min(name.size(), kMaxNameBytes)), name.data(), kMaxNameBytes);
}

Result<void> request_drain(cluster::Directory& directory, std::string_view name,
                           DrainRequest request) {
  ISTHMUS_TRY_VOID(check_node_name(name));
  const std::string key = std::string(kDrainKeys) + std::string(name);
  if (request == DrainRequest::kServeAgain) {
    ISTHMUS_TRY(directory.erase(key));
    return {};
  }
  const auto node = directory.get(std::string(kNodeKeys) + std::string(name));
  if (!node && node.error().code == ErrorCode::kNotFound) {
    return fail(ErrorCode::kNotFound, "there is no memory node %.*s; see `isthmus memory ls`",
                static_cast<int>(name.size()), name.data());
  }
  if (!node) return std::unexpected(node.error());
  ISTHMUS_TRY(directory.put(key, "{}"));
  return {};
}

}  // namespace isthmus::farmem
